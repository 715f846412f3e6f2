// The page as a whole: its tabs, its language, how pictures come in, and whether the server is there.

import * as cardsTab from "./cards.js";
import * as pictures from "./pictures.js";
import { ask, cards, useToken } from "./server.js";
import * as texts from "./texts.js";
import { onLanguage, say, speak } from "./words.js";

const $ = (id) => document.getElementById(id);
const LOOK_AGAIN = 15_000; // ms between looks at the server
const tabs = [...document.querySelectorAll('[role="tab"]')];

let state = "";

async function load() {
  try {
    const all = await cards();
    $("lock").hidden = true;
    $("tab-pictures").hidden = !pictures.offered(all);
    $("tab-text").hidden = !texts.offered(all);
    pictures.setCards(all);
    texts.setCards(all);
    cardsTab.setCards(all);
    open(tabs.find((tab) => !tab.hidden && tab.getAttribute("aria-selected") === "true") ?? tabs.find((tab) => !tab.hidden));
  } catch (error) {
    if (error.code === "unauthorized") {
      lock();
    } else {
      $("problem").hidden = false;
      $("problem").textContent = error.message;
    }
  }
}

function lock() {
  $("lock").hidden = false;
  $("token").focus();
}

function open(tab) {
  for (const one of tabs) {
    const here = one === tab;
    one.setAttribute("aria-selected", String(here));
    one.tabIndex = here ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !here;
  }
}

function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) {
    const there = tabs.filter((tab) => !tab.hidden);
    const next = there[(there.indexOf(event.target) + step + there.length) % there.length];
    next.focus();
    open(next);
  }
}

function take(list, named = true) {
  const file = [...(list ?? [])].find((one) => one.type.startsWith("image/") || /\.(jpe?g|png|webp|bmp)$/i.test(one.name));
  const any = file ?? list?.[0];
  if (any) {
    open($("tab-pictures"));
    pictures.open(any, named ? any.name : "");
  }
}

function dropping() {
  const here = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (on) => document.body.classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    if (here(event)) {
      event.preventDefault();
      over(true);
    }
  });
  document.addEventListener("dragleave", (event) => over(event.relatedTarget !== null && here(event)));
  document.addEventListener("drop", (event) => {
    over(false);
    if (here(event)) {
      event.preventDefault();
      take(event.dataTransfer.files);
    }
  });
}

async function look() {
  try {
    await ask("/readyz");
    tellState("ready");
  } catch (error) {
    tellState(error.code === "not-reached" ? "gone" : "unready");
  }
}

function tellState(now) {
  if (state !== now) {
    state = now;
    $("state").dataset.state = now;
    $("state").textContent = say(now);
  }
}

for (const tab of tabs) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", walk);
}
for (const id of ["choose", "another"]) {
  $(id).addEventListener("click", () => $("file").click());
}
$("file").addEventListener("change", () => {
  take($("file").files);
  $("file").value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) {
    take(event.clipboardData.files, false);
  }
});
dropping();
$("lock").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken($("token").value.trim());
  load();
});
document.addEventListener("locked", lock);
$("language").addEventListener("click", () => speak(say("language-name")));
onLanguage(() => {
  $("language").textContent = say("language");
  $("language").lang = say("language-name");
  $("state").textContent = state && say(state);
});
cardsTab.onUse((card) => {
  const [tab, panel] = texts.offered([card]) ? ["tab-text", texts] : ["tab-pictures", pictures];
  panel.use(card.name);
  open($(tab));
  $(tab).focus();
});
speak();
load();
look();
setInterval(() => document.hidden || look(), LOOK_AGAIN);
