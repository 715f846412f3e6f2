// The tab for texts: topics, sentiment and translation, as far as the server offers them.

import { ask, names } from "./server.js";
import { current, number, onLanguage, say } from "./words.js";

const $ = (id) => document.getElementById(id);
const TASKS = ["sentiment", "classify-text", "translate"]; // the first that fits is what a model is for

let cards = [];
let last = null; // {card, told}

const taskOf = (card) => TASKS.find((task) => card.addresses.includes(task));

export const offered = (all) => all.some(taskOf);

export function setCards(all) {
  cards = all.filter(taskOf);
  list();
}

export function use(name) {
  const card = cards.find((one) => one.name === name);
  if (card) {
    $("task").value = taskOf(card);
    listModels();
    $("text-model").value = name;
  }
}

function list() {
  const chosen = $("task").value;
  const there = TASKS.filter((task) => cards.some((card) => taskOf(card) === task));
  $("task").replaceChildren(...there.map((task) => new Option(say(task), task)));
  $("task").value = there.includes(chosen) ? chosen : (there[0] ?? "");
  listModels();
}

function listModels() {
  const chosen = $("text-model").value;
  const fitting = cards.filter((card) => taskOf(card) === $("task").value);
  $("text-model").replaceChildren(...fitting.map((card) => new Option(called(card), card.name)));
  if (fitting.some((card) => card.name === chosen)) {
    $("text-model").value = chosen;
  }
}

const called = (card) =>
  card.translate ? `${card.translate.source} → ${card.translate.target} · ${card.name}` : `${card.name} · ${card.text.languages.join(", ")}`;

async function run(event) {
  event?.preventDefault();
  const card = cards.find((one) => one.name === $("text-model").value);
  if (!card || !$("words").value.trim()) {
    $("words").focus();
    return;
  }
  $("run").disabled = true;
  try {
    const told = await ask(`/v1/models/${encodeURIComponent(card.name)}/predict`, {
      method: "POST",
      type: "application/json",
      body: JSON.stringify({ text: $("words").value }),
    });
    last = { card, told };
    problem(null);
    tell();
  } catch (error) {
    problem(error);
  } finally {
    $("run").disabled = false;
  }
}

function tell() {
  const { card, told } = last;
  $("told").replaceChildren(...("classes" in told ? bars(card, told.classes) : [translation(card, told)]));
  const spent = told.timing_ms;
  const values = { total: number(spent.total, 1), queue: number(spent.queue, 1), run: number(spent.run, 1) };
  $("text-timing").textContent = say("timing", values);
}

function bars(card, classes) {
  const words = names(card, current());
  return classes.map((one, place) => {
    const made = element("div", "", place ? "bar" : "bar best");
    const meter = element("span", "", "meter");
    meter.append(element("i"));
    meter.firstChild.style.width = `${100 * one.score}%`;
    made.append(element("span", words[one.label_id], "name"), element("span", number(one.score, 3), "value"), meter);
    return made;
  });
}

function translation(card, told) {
  const made = element("p", told.text, "translation");
  made.lang = card.translate?.target ?? "";
  return made;
}

function problem(error) {
  $("text-problem").hidden = !error;
  $("text-problem").textContent = error?.message ?? "";
  if (error) {
    $("told").replaceChildren();
    $("text-timing").textContent = "";
  }
  if (error?.code === "unauthorized") {
    document.dispatchEvent(new Event("locked"));
  }
}

function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = name;
  return made;
}

$("task").addEventListener("change", listModels);
$("write").addEventListener("submit", run);
$("words").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    run(event);
  }
});
onLanguage(() => {
  list();
  if (last && $("text-problem").hidden) {
    tell();
  }
});
