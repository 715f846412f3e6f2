// The list beside the picture: how many of what, and each one with its score; it can be walked through with the arrow keys.

import { color } from "./draw.js";
import { number, percent, say } from "./words.js";

const sum = document.getElementById("sum");
const chips = document.getElementById("chips");
const list = document.getElementById("rows");
const timing = document.getElementById("timing");
const MOST = 300;

let visible = [];
let chosen = null;
let pointed = () => {};

export function onPoint(listener) {
  pointed = listener;
}

// Fills the list; returns one sentence that says what was found.
export function tell(seen, { shown, name, score }) {
  visible = seen.rows.map((_, row) => row).filter((row) => shown(seen.rows[row]));
  chosen = null;
  const said = summary(seen, score);
  sum.textContent = said;
  chips.replaceChildren(...(seen.boxed ? counted(seen, name) : []));
  list.replaceChildren(...visible.slice(0, MOST).map((row) => entry(seen.rows[row], row, name)));
  list.hidden = !visible.length;
  list.removeAttribute("aria-activedescendant");
  const found = visible.map((row) => name(seen.rows[row]));
  return seen.boxed && found.length ? `${said}: ${grouped(found)}` : said;
}

export function clear() {
  [visible, chosen] = [[], null];
  sum.textContent = timing.textContent = "";
  chips.replaceChildren();
  list.replaceChildren();
  list.hidden = true;
}

export function time(spent, more = "") {
  const values = { total: number(spent.total, 1), queue: number(spent.queue, 1), run: number(spent.run, 1) };
  timing.textContent = [say("timing", values), more].filter(Boolean).join(" · ");
}

// Marks the entry of a row, or none, and brings it into view.
export function mark(row) {
  chosen = row;
  for (const element of list.children) {
    const here = element.dataset.row === String(row);
    element.setAttribute("aria-selected", String(here));
    if (here) {
      list.setAttribute("aria-activedescendant", element.id);
      const [top, bottom] = [element.offsetTop - list.offsetTop, element.offsetTop - list.offsetTop + element.offsetHeight];
      if (top < list.scrollTop || bottom > list.scrollTop + list.clientHeight) {
        list.scrollTop = top - list.clientHeight / 2;
      }
    }
  }
  if (row === null) {
    list.removeAttribute("aria-activedescendant");
  }
}

// Returns what the page says of one row: its name first.
export function details(row, name) {
  const said = [`${name(row)} ${row.score === undefined ? percent(row.share) : number(row.score, 2)}`];
  if (row.box) {
    const { x1, y1, x2, y2 } = row.box;
    said.push(say("size", { width: number(x2 - x1, 0), height: number(y2 - y1, 0) }));
    said.push(say("at", { x: number(x1, 0), y: number(y1, 0) }));
  } else if (row.share !== undefined) {
    said.push(say("of-picture", { share: percent(row.share) }));
  }
  return said;
}

function summary(seen, score) {
  if (!seen.boxed) {
    return seen.owner || seen.rows[0]?.share !== undefined ? say("areas", { count: visible.length }) : say("classes");
  }
  if (!visible.length) {
    return say("nothing", { score: number(score, 2) });
  }
  return visible.length === 1 ? say("sum-one") : say("sum", { count: visible.length });
}

function tally(items) {
  const counts = new Map();
  for (const item of items) {
    counts.set(item, (counts.get(item) ?? 0) + 1);
  }
  return [...counts].sort((one, other) => other[1] - one[1]);
}

const grouped = (found) => tally(found).map(([label, count]) => `${count} ${label}`).join(", ");

function counted(seen, name) {
  return tally(visible.map((row) => seen.rows[row].label)).map(([label, count]) => {
    const chip = document.createElement("li");
    chip.append(swatch(label), `${name({ label })} `, element("b", String(count)));
    return chip;
  });
}

function entry(row, index, name) {
  const value = row.score ?? row.share;
  const made = element("div");
  made.id = `row-${index}`;
  made.dataset.row = index;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", "false");
  const bar = element("i");
  bar.style.width = `${100 * value}%`;
  bar.style.background = color(row.label);
  const [, ...facts] = details(row, name);
  const meter = element("span", "", "meter");
  meter.append(bar);
  made.append(
    swatch(row.label),
    element("span", name(row), "name"),
    element("span", row.box ? facts[0] : "", "fact"),
    element("span", row.score === undefined ? percent(row.share) : number(value, 2), "value"),
    meter,
  );
  return made;
}

function swatch(label) {
  const made = element("span", "", "swatch");
  made.style.background = color(label);
  return made;
}

function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = name;
  return made;
}

function choose(row) {
  mark(row);
  pointed(row);
}

list.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
  if (event.key === "Escape") {
    choose(null);
  } else if (step !== undefined && visible.length) {
    event.preventDefault();
    const last = Math.min(visible.length, MOST) - 1;
    const place = chosen === null ? (step > 0 ? -1 : last + 1) : visible.indexOf(chosen);
    choose(visible[Math.max(0, Math.min(last, place + step))]);
  }
});
list.addEventListener("pointerover", (event) => {
  const row = event.target.closest("[data-row]")?.dataset.row;
  choose(row === undefined ? null : Number(row));
});
list.addEventListener("pointerleave", () => choose(null));
list.addEventListener("blur", () => choose(null));
