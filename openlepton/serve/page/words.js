// Every word of the page, in English and Chinese.

const WORDS = {
  en: {
    "skip": "Skip to the content",
    "pictures": "Pictures", "text": "Text", "models": "Models",
    "language": "中文", "language-name": "zh",
    "ready": "Ready", "waiting": "Working", "unready": "Not ready", "gone": "No server",
    "token": "This server asks for a token", "unlock": "Use it",
    "drop": "Drop a picture here", "paste": "or paste one from the clipboard",
    "choose": "Choose a picture", "camera": "Use the webcam", "another": "Another picture", "stop": "Stop the webcam",
    "stays": "Pictures go to this server and nowhere else; it keeps none.",
    "copy": "Copy JSON", "copied": "Copied", "save": "Save picture",
    "model": "Model", "score": "Score above", "iou": "Overlap (IoU) up to", "tags": "Names on the picture",
    "found": "Found", "nothing": "Nothing that scores more than {score}.",
    "sum-one": "1 object", "sum": "{count} objects", "classes": "Most probable", "areas": "{count} classes",
    "picture-of": "{name}, {width} by {height} pixels. {sum}.",
    "clipboard": "Picture from the clipboard", "webcam": "Webcam",
    "timing": "{total} ms in all: {queue} waiting, {run} working", "rate": "{rate} pictures a second",
    "size": "{width} × {height} px", "at": "at {x}, {y}", "of-picture": "{share} of the picture",
    "task": "What to do", "your-text": "Your text", "run": "Run",
    "detect": "Detection", "segment": "Segmentation", "semantic": "Segmentation of the scene", "classify": "Classification",
    "classify-text": "Topic", "sentiment": "Sentiment", "translate": "Translation",
    "use": "Use this model", "licence": "Licence", "input": "Input", "weights": "Size", "made": "Origin", "kind": "Architecture",
    "measured": "Measured", "more": "{count} more", "on": "on", "classes-of": "Classes: {count}", "version": "version {version}",
    "no-pictures": "No model for pictures is served here.",
    "not-picture": "That is not a picture: JPEG, PNG, WebP and BMP are read.",
    "not-reached": "The server cannot be reached. Is it still running?",
    "camera-refused": "The webcam was refused. The browser's address bar may let you change that.",
    "camera-none": "No webcam was found.",
    "camera-insecure": "Browsers give the webcam to pages of this machine or behind HTTPS alone.",
    "overloaded": "The server has too much to do at the moment; try again soon.",
    "draining": "The server is stopping or replacing a worker; try again soon.",
    "image-unreadable": "This picture cannot be read.", "image-too-large": "This picture is too large.",
    "request-too-large": "This is too large.", "deadline-exceeded": "It took too long.",
    "unauthorized": "A token is needed.", "model-failed": "The model failed; the server's log says why.",
  },
  zh: {
    "skip": "跳到正文",
    "pictures": "图像", "text": "文本", "models": "模型",
    "language": "English", "language-name": "en",
    "ready": "就绪", "waiting": "处理中", "unready": "未就绪", "gone": "连不上服务器",
    "token": "此服务器需要令牌", "unlock": "使用",
    "drop": "把图片拖到这里", "paste": "或从剪贴板粘贴",
    "choose": "选择图片", "camera": "使用摄像头", "another": "换一张图片", "stop": "关闭摄像头",
    "stays": "图片只发送到这台服务器，不会保存。",
    "copy": "复制 JSON", "copied": "已复制", "save": "保存图片",
    "model": "模型", "score": "得分高于", "iou": "重叠（IoU）不超过", "tags": "在图上显示名称",
    "found": "结果", "nothing": "没有得分高于 {score} 的目标。",
    "sum-one": "1 个目标", "sum": "{count} 个目标", "classes": "最可能的类别", "areas": "{count} 个类别",
    "picture-of": "{name}，{width} × {height} 像素。{sum}。",
    "clipboard": "剪贴板中的图片", "webcam": "摄像头",
    "timing": "共 {total} 毫秒：等待 {queue}，计算 {run}", "rate": "每秒 {rate} 张",
    "size": "{width} × {height} 像素", "at": "位于 {x}, {y}", "of-picture": "占图像的 {share}",
    "task": "任务", "your-text": "输入文本", "run": "运行",
    "detect": "目标检测", "segment": "实例分割", "semantic": "语义分割", "classify": "图像分类",
    "classify-text": "主题分类", "sentiment": "情感分析", "translate": "翻译",
    "use": "使用此模型", "licence": "许可证", "input": "输入", "weights": "大小", "made": "来源", "kind": "结构",
    "measured": "实测", "more": "另外 {count} 项", "on": "数据：", "classes-of": "类别：{count}", "version": "版本 {version}",
    "no-pictures": "此服务器没有图像模型。",
    "not-picture": "这不是可读取的图片：支持 JPEG、PNG、WebP 和 BMP。",
    "not-reached": "连不上服务器。它还在运行吗？",
    "camera-refused": "摄像头被拒绝。可以在浏览器地址栏更改权限。",
    "camera-none": "没有找到摄像头。",
    "camera-insecure": "浏览器只允许本机页面或 HTTPS 页面使用摄像头。",
    "overloaded": "服务器繁忙，请稍后再试。",
    "draining": "服务器正在停止或更换工作进程，请稍后再试。",
    "image-unreadable": "无法读取这张图片。", "image-too-large": "这张图片太大。",
    "request-too-large": "内容太大。", "deadline-exceeded": "处理超时。",
    "unauthorized": "需要令牌。", "model-failed": "模型出错，原因见服务器日志。",
  },
};

const KEPT = "openlepton.language";
const listeners = [];
let language = kept() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export const current = () => language;

export const knows = (key) => key in WORDS[language];

// Returns the words of a key, with {name} replaced by values.name.
export const say = (key, values = {}) =>
  (WORDS[language][key] ?? key).replace(/\{(\w+)\}/g, (_, name) => String(values[name]));

export const number = (value, digits) =>
  value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });

export const percent = (value) => value.toLocaleString(language, { style: "percent", maximumFractionDigits: 1 });

export function onLanguage(listener) {
  listeners.push(listener);
}

export function speak(wanted = language) {
  language = wanted;
  try {
    localStorage.setItem(KEPT, language);
  } catch {
    // A browser that keeps nothing speaks its own language next time.
  }
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = say(element.dataset.word);
  }
  for (const element of document.querySelectorAll("[data-hint]")) {
    element.placeholder = say(element.dataset.hint);
  }
  for (const listener of listeners) {
    listener();
  }
}

function kept() {
  try {
    const found = localStorage.getItem(KEPT);
    return found in WORDS ? found : null;
  } catch {
    return null;
  }
}
