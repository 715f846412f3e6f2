// What the page asks of the server that it came from.

import { knows, say } from "./words.js";

const KEPT = "openlepton.token";

// What went wrong, in words for a person; `code` is that of openlepton.errors.
export class Problem extends Error {
  constructor(code, detail, retryAfter = 0) {
    super(knows(code) ? (detail ? `${say(code)} (${detail})` : say(code)) : detail || say(code));
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export function useToken(token) {
  sessionStorage.setItem(KEPT, token);
}

// Returns the JSON of an answer; throws a Problem for everything that is none.
export async function ask(path, { method = "GET", body, type, query = {}, signal } = {}) {
  const token = sessionStorage.getItem(KEPT);
  const headers = { ...(type && { "Content-Type": type }), ...(token && { Authorization: `Bearer ${token}` }) };
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const target = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  let answer;
  try {
    answer = await fetch(target, { method, body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new Problem("not-reached");
  }
  const told = await answer.json().catch(() => null);
  if (!answer.ok) {
    throw new Problem(told?.code ?? "error", told?.detail ?? `HTTP ${answer.status}`, Number(answer.headers.get("Retry-After")));
  }
  return told;
}

// Returns the cards of all models, each with the addresses that take it, and whether one uses it by default.
export async function cards() {
  const { models } = await ask("/v1/models");
  return Promise.all(models.map(async (one) => ({ ...(await ask(one.href)), usual: one.default, addresses: one.addresses })));
}

export const names = (card, language) => (language === "zh" && card.labels_zh) || card.labels;
