// The tab for pictures: from a file, a paste or the webcam to what a model finds in it.

import * as camera from "./camera.js";
import { scene } from "./draw.js";
import * as results from "./results.js";
import { ask, names, Problem } from "./server.js";
import * as stage from "./stage.js";
import { current, number, onLanguage, say } from "./words.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 120; // ms after the last move of a slider
const IMAGE_TASKS = new Set(["detect", "segment", "semantic", "classify"]);

let cards = [];
let card = null;
let source = null; // {name, file, picture}: what is looked at
let answer = null; // and what the server said of it
let asked = 1; // the score that the answer was asked with
let turn = 0;
let timer = 0;
let under = null; // the request that is under way

export const offered = (all) => all.some((one) => IMAGE_TASKS.has(one.task));

export function setCards(all) {
  cards = all.filter((one) => IMAGE_TASKS.has(one.task));
  listModels();
  if (cards.length) {
    use((cards.find((one) => one.usual && one.task === "detect") ?? cards[0]).name);
  } else {
    problem(new Problem("no-pictures"));
  }
}

// Takes another model, and looks at the same picture with it.
export function use(name) {
  const found = cards.find((one) => one.name === name);
  if (!found) {
    return;
  }
  card = found;
  $("model").value = name;
  $("sliders").hidden = !card.detect;
  if (card.detect) {
    $("score").value = card.detect.min_score;
    $("iou").value = card.detect.max_iou;
  }
  sliders();
  if (source && !camera.running()) {
    forget();
    look();
  }
}

// Looks at a file; `name` is what a person calls it.
export async function open(file, name) {
  camera.stop();
  const picture = await createImageBitmap(file).catch(() => null);
  if (!picture) {
    problem(new Problem("not-picture"));
    return;
  }
  source = { name, file, picture };
  $("tools").hidden = false;
  forget();
  await look();
}

export async function film() {
  controls(true);
  let [since, rate] = [performance.now(), 0];
  try {
    await camera.start(async (picture, file) => {
      const told = await patiently(() => request(file));
      if (!camera.running()) {
        picture.close();
        return;
      }
      const now = performance.now();
      rate = 0.8 * (rate || 1000 / (now - since)) + 0.2 * (1000 / (now - since));
      since = now;
      [source, answer, asked] = [{ name: "", file, picture }, told, score()];
      problem(null);
      tell(say("rate", { rate: number(rate, 1) }));
    });
  } catch (error) {
    problem(error);
  } finally {
    controls(false);
  }
}

function controls(filming) {
  $("stop").hidden = !filming;
  $("camera-too").hidden = filming;
  $("tools").hidden = !filming && !source;
  if (filming) {
    $("stop").focus();
  }
}

// Asks again while the server is too busy, as long as the webcam runs.
async function patiently(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!["overloaded", "draining"].includes(error.code) || !camera.running()) {
        throw error;
      }
      problem(error);
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || 1)));
    }
  }
}

function request(file, signal) {
  const found = card.detect ? { min_score: $("score").value, max_iou: $("iou").value } : {};
  return ask(`/v1/models/${encodeURIComponent(card.name)}/predict`, {
    method: "POST",
    body: file,
    type: "application/octet-stream",
    query: found,
    signal,
  });
}

async function look() {
  clearTimeout(timer);
  under?.abort();
  under = new AbortController();
  const [mine, wanted] = [++turn, score()];
  document.body.classList.add("busy");
  try {
    const told = await request(source.file, under.signal);
    if (mine === turn) {
      [answer, asked] = [told, wanted];
      problem(null);
      tell();
    }
  } catch (error) {
    if (mine === turn && error.name !== "AbortError") {
      forget();
      problem(error);
    }
  } finally {
    if (mine === turn) {
      document.body.classList.remove("busy");
    }
  }
}

// Shows the picture alone.
function forget() {
  answer = null;
  stage.show(source.picture, scene({ image: { width: source.picture.width, height: source.picture.height } }), shownAs());
  stage.named(called());
  results.clear();
}

// Puts the answer on the stage and into the list.
function tell(more = "") {
  if (answer.model.name !== card.name) {
    return; // the webcam's, of the model before
  }
  const size = { width: source.picture.width, height: source.picture.height };
  const seen = scene({ ...answer, image: answer.image ?? size });
  const as = shownAs(seen);
  stage.show(source.picture, seen, as);
  const said = results.tell(seen, { ...as, score: score() });
  results.time(answer.timing_ms, more);
  stage.named(say("picture-of", { name: called(), ...size, sum: said }));
}

const called = () => (camera.running() ? say("webcam") : source.name || say("clipboard"));

const score = () => Number($("score").value);

function shownAs(seen = null) {
  const words = names(card, current());
  const least = seen?.boxed ? score() : -1;
  const name = (row) => words[row.label] ?? String(row.label);
  return {
    shown: (row) => (row.score ?? 1) > least,
    name,
    tags: $("tags").checked,
    details: (row) => results.details(seen.rows[row], name),
    pointed: results.mark,
  };
}

function problem(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error?.message ?? "";
  if (error?.code === "unauthorized") {
    document.dispatchEvent(new Event("locked"));
  }
}

function sliders() {
  $("score-value").textContent = number(Number($("score").value), 2);
  $("iou-value").textContent = number(Number($("iou").value), 2);
}

function listModels() {
  const chosen = card?.name;
  $("model").replaceChildren(...cards.map((one) => new Option(`${one.name} · ${say(one.task)}`, one.name)));
  $("model").disabled = cards.length < 2;
  if (chosen) {
    $("model").value = chosen;
  }
}

function save() {
  stage.copy().toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${(source.name || "openlepton").replace(/\.[^.]*$/, "")}-${card.name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

async function copy() {
  if (answer) {
    await navigator.clipboard.writeText(JSON.stringify(answer, null, 2));
    $("copy").textContent = say("copied");
    setTimeout(() => ($("copy").textContent = say("copy")), 1500);
  }
}

$("model").addEventListener("change", () => use($("model").value));
$("score").addEventListener("input", () => {
  sliders();
  if (answer && !camera.running()) {
    clearTimeout(timer);
    if (score() >= asked) {
      tell(); // what is left over is known already
    } else {
      timer = setTimeout(look, PAUSE);
    }
  }
});
$("iou").addEventListener("input", () => {
  sliders();
  if (source && !camera.running()) {
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE);
  }
});
$("tags").addEventListener("change", () => answer && tell());
$("copy").addEventListener("click", copy);
$("save").addEventListener("click", () => answer && save());
$("stop").addEventListener("click", camera.stop);
for (const id of ["camera", "camera-too"]) {
  $(id).addEventListener("click", film);
}
results.onPoint(stage.point);
onLanguage(() => {
  listModels();
  sliders();
  problem(null);
  if (answer) {
    tell();
  }
});
