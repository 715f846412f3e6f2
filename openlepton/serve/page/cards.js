// The tab of models: what each card says, with the numbers that were measured and the data they were measured on.

import { names } from "./server.js";
import { current, onLanguage, say } from "./words.js";

const SHOWN = 3; // numbers of a card; the others are a click away
const place = document.getElementById("models");
let cards = [];
let chosen = () => {};

export function onUse(listener) {
  chosen = listener;
}

export function setCards(all) {
  cards = all;
  show();
}

function show() {
  place.replaceChildren(...cards.map(made));
}

function made(card) {
  const article = element("article");
  article.setAttribute("aria-labelledby", `card-${card.name}`);
  const title = element("h2", card.name);
  title.id = `card-${card.name}`;
  const button = element("button", say("use"));
  button.type = "button";
  button.setAttribute("aria-describedby", title.id);
  button.addEventListener("click", () => chosen(card));
  const head = element("header");
  head.append(title, button, element("span", `${say(card.task)} · ${say("version", card)}`, "fine"));
  article.append(head, element("p", card.description));
  if (card.metrics?.length) {
    article.append(...measured(card.metrics));
  }
  article.append(facts(card));
  if (card.labels?.length) {
    article.append(classes(card));
  }
  return article;
}

function facts(card) {
  const bytes = Object.values(card.files ?? {}).reduce((sum, file) => sum + file.size, 0);
  const list = element("dl");
  const rows = [
    ["licence", card.licence],
    ["kind", card.architecture],
    ["input", card.input ? `${(card.input.size_hw ?? [card.input.size]).join(" × ")} px` : card.text?.languages.join(", ")],
    ["weights", `${(bytes / 1e6).toFixed(1)} MB`],
    ["made", card.source],
  ];
  for (const [key, value] of rows) {
    if (value) {
      list.append(element("dt", say(key)), element("dd", value));
    }
  }
  return list;
}

// Returns the first numbers as a table, and the others behind a summary.
function measured(metrics) {
  const first = table(metrics.slice(0, SHOWN));
  first.prepend(element("caption", say("measured")));
  if (metrics.length <= SHOWN) {
    return [first];
  }
  const more = element("details");
  more.append(element("summary", say("more", { count: metrics.length - SHOWN })), table(metrics.slice(SHOWN)));
  return [first, more];
}

function table(metrics) {
  const made = element("table");
  for (const metric of metrics) {
    const row = element("tr");
    const name = element("th", metric.name);
    name.scope = "row";
    name.append(element("small", `${say("on")} ${metric.data}`));
    row.append(name, element("td", String(metric.value)));
    made.append(row);
  }
  return made;
}

function classes(card) {
  const words = names(card, current());
  const more = element("details");
  more.append(element("summary", say("classes-of", { count: words.length })), element("p", words.join(current() === "zh" ? "、" : ", ")));
  return more;
}

function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = name;
  return made;
}

onLanguage(show);
