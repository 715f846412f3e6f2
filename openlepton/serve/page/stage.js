// The picture on the page: fitted to its place, redrawn when anything changes, and asked what lies under the pointer.

import { at, draw } from "./draw.js";

const canvas = document.getElementById("canvas");
const stage = document.getElementById("stage");
const empty = document.getElementById("empty");
const tip = document.getElementById("tip");

let picture = null;
let seen = null;
let active = null;
let asked = { shown: () => true, name: () => "", tags: true, details: () => [], pointed: () => {} };
let waiting = false;

// Shows a picture, with what was found in it or nothing yet; both stay until the next call.
export function show(newPicture, newSeen, options) {
  if (picture !== newPicture) {
    picture?.close?.();
    picture = newPicture;
    point(null);
  }
  [seen, asked] = [newSeen, { ...asked, ...options }];
  if (active !== null && !seen.rows[active]) {
    point(null);
  }
  canvas.hidden = false;
  empty.hidden = true;
  redraw();
}

export function redraw() {
  if (picture && !waiting) {
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  }
}

// Makes one row stand out, or none.
export function point(row) {
  if (active !== row) {
    active = row;
    redraw();
  }
}

export const named = (text) => canvas.setAttribute("aria-label", text);

// Returns the picture as it is shown, at its own size.
export function copy() {
  const whole = document.createElement("canvas");
  [whole.width, whole.height] = [seen.width, seen.height];
  const ratio = Math.max(1, Math.sqrt(seen.width * seen.height) / 900);
  draw(whole.getContext("2d"), picture, seen, { ...asked, scale: 1, active: null, ratio });
  return whole;
}

function paint() {
  const ratio = window.devicePixelRatio || 1;
  const room = stage.getBoundingClientRect();
  const fit = Math.min((room.width - 2) / seen.width, (room.height - 2) / seen.height);
  const [width, height] = [Math.max(1, Math.round(seen.width * fit)), Math.max(1, Math.round(seen.height * fit))];
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const [pixels, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixels || canvas.height !== rows) {
    [canvas.width, canvas.height] = [pixels, rows];
  }
  draw(canvas.getContext("2d"), picture, seen, { ...asked, active, scale: pixels / seen.width, ratio });
}

function moved(event) {
  if (!seen) {
    return;
  }
  const place = canvas.getBoundingClientRect();
  const scale = seen.width / place.width;
  const row = at(seen, (event.clientX - place.left) * scale, (event.clientY - place.top) * scale, asked.shown);
  point(row);
  asked.pointed(row);
  tip.hidden = row === null;
  if (row !== null) {
    const [title, ...facts] = asked.details(row);
    tip.replaceChildren(line("strong", title), ...facts.map((fact) => line("span", fact)));
    const room = stage.getBoundingClientRect();
    const x = Math.min(event.clientX - room.left + 16, room.width - tip.offsetWidth - 8);
    const y = event.clientY - room.top + 18;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${y + tip.offsetHeight > room.height - 8 ? y - tip.offsetHeight - 32 : y}px`;
  }
}

function left() {
  tip.hidden = true;
  point(null);
  asked.pointed(null);
}

function line(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

canvas.addEventListener("pointermove", moved);
canvas.addEventListener("pointerdown", moved);
canvas.addEventListener("pointerleave", left);
new ResizeObserver(redraw).observe(stage);
