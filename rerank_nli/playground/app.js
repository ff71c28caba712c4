// Reads the controls, asks the server, and shows its answer; an older answer never takes the place of a newer one.

import { Problem, fromText, readFile } from "./passages.js";
import { asCurl, asPython } from "./snippets.js";
import { byId, counted, showRanking, showVerdict } from "./view.js";

const EXAMPLE = {
  query: "Dogs are allowed on the beach in summer.",
  passages: [
    "No dogs are allowed on the beach in summer.",
    "Most dogs swim well.",
    "The sand is raked every night. Dogs are allowed on the whole beach in summer. A kiosk sells ice cream.",
    "The beach is two miles long.",
    "In summer the beach is open to dogs. Please keep them on a lead.",
  ],
};
const HALF = 0.5;
const RANGES = { margin: [-1, 1, 0.01, 0], logit: [-8, 8, 0.1, 0] }; // least, most, step, start; else a probability
const PROBABILITY = [0, 1, 0.01, HALF];
const WAIT = { typing: 350, choosing: 60 }; // milliseconds

const state = { file: null, models: null, token: "", running: null, timer: 0 };

class Locked extends Problem {}

/** What is asked, as the body of a request. */
function request() {
  const value = (id) => byId(id).value;
  const documents = state.file ? state.file.passages(value("split")) : fromText(value("passages"), value("split"));
  return {
    query: value("query").trim().toWellFormed(),
    documents: documents.map((text) => text.toWellFormed()),
    direction: value("direction"),
    score: value("score"),
    keep: value("keep"),
    ...(byId("filter").checked && { threshold: Number(value("threshold")) }),
    ...(byId("model").selectedIndex > 0 && { model: value("model") }),
  };
}

/** A route's answer; what it refuses becomes a Problem in its own words. */
async function ask(path, signal, body) {
  const headers = { "Content-Type": "application/json" };
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  const how = { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers, signal };
  let response, answer;
  try {
    // with a token of its own the page leaves out what the browser knows, and so the browser does not ask for it
    response = await fetch(path, { ...how, credentials: state.token ? "omit" : "same-origin" });
    answer = await response.json().catch(() => ({}));
  } catch {
    throw new Problem("The server cannot be reached. Is it still running?");
  }
  if (response.status === 401) throw new Locked(state.token ? "The server does not take this token." : "");
  if (!response.ok) throw new Problem(answer.message ?? `The server answered with status ${response.status} and no reason.`);
  return answer;
}

/** Ask again soon, and forget what was asked before. */
function soon(wait) {
  state.running?.abort();
  clearTimeout(state.timer);
  byId("answered").ariaBusy = "true";
  state.timer = setTimeout(update, wait);
}

async function update() {
  state.running?.abort();
  const { signal } = (state.running = new AbortController());
  const asked = request();
  const least = asked.score === "entailment" ? (asked.threshold ?? HALF) : HALF;
  showCode(asked, least);
  if (!asked.query || !asked.documents.length) {
    byId("results").hidden = true;
    say(asked.query ? "Give at least one passage." : "Give a query or a claim.");
    return;
  }
  say(`Scoring ${counted(asked.documents.length, "passage")} …`, true);
  try {
    state.models ??= named(await ask("v1/models", signal));
    const answer = await ask("v1/rerank", signal, asked);
    showRanking(asked, answer, null);
    let verdict, refusal;
    try {
      verdict = await ask("v1/verify", signal, { claim: asked.query, passages: asked.documents, threshold: least, model: asked.model });
    } catch (error) {
      if (signal.aborted || !(error instanceof Problem) || error instanceof Locked) throw error;
      refusal = error.message;
    }
    showVerdict(verdict, least, refusal);
    showRanking(asked, answer, verdict);
    say(summary(answer, verdict));
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    refuse(error);
  }
}

function summary({ results, dropped = [] }, verdict) {
  const parts = dropped.length ? `${results.length} kept, ${dropped.length} filtered out` : `${counted(results.length, "passage")} in order`;
  const label = { supported: "supported", refuted: "refuted", insufficient: "not settled" }[verdict?.label];
  return label ? `${parts}. The claim is ${label}.` : `${parts}.`;
}

function say(message, busy = false) {
  byId("status").textContent = message;
  byId("problem").hidden = true;
  byId("token-form").hidden = true;
  byId("answered").ariaBusy = String(busy);
}

function refuse(error) {
  say("");
  byId("results").hidden = true;
  byId("problem").textContent = error.message;
  byId("problem").hidden = !error.message;
  if (error instanceof Locked) {
    byId("status").textContent = "This server asks for a token.";
    byId("token-form").hidden = false;
    showCode(request(), HALF);
  }
}

function named({ data }) {
  byId("model").replaceChildren(...data.map(({ id }) => new Option(id, id)));
  byId("model-label").hidden = data.length < 2;
  return data;
}

function showCode(asked, least) {
  const locked = Boolean(state.token) || !byId("token-form").hidden;
  byId("curl").textContent = asCurl(new URL("v1/rerank", document.baseURI).href, asked, locked);
  byId("python").textContent = asPython({ ...asked, model: asked.model ?? state.models?.[0].id }, least);
}

/** Give the threshold the range of what it is held against. */
function range() {
  const [least, most, step, start] = (byId("keep").value !== "contradiction" && RANGES[byId("score").value]) || PROBABILITY;
  const slider = byId("threshold");
  if (slider.min !== String(least)) Object.assign(slider, { min: least, max: most, step, value: start });
  slider.disabled = !byId("filter").checked;
  byId("threshold-value").textContent = slider.disabled ? "off" : Number(slider.value).toFixed(2).replace("-", "−");
}

async function take(files) {
  try {
    if (files.length > 1) throw new Problem("One file at a time: drop the one that holds the passages.");
    if (!files.length) return;
    state.file = { name: files[0].name, passages: await readFile(files[0]) };
    showFile();
    soon(0);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
  }
  byId("file").value = "";
}

function showFile() {
  const { file } = state;
  byId("passages").hidden = Boolean(file);
  byId("from-file").hidden = !file;
  if (!file) return;
  const passages = file.passages(byId("split").value);
  byId("file-name").textContent = `${file.name}: ${counted(passages.length, "passage")}`;
  byId("file-start").textContent = passages.length ? `It begins with: ${passages[0].slice(0, 160)}` : "It is empty.";
}

async function copy(button) {
  const source = byId(button.dataset.copy);
  const label = (button.dataset.label ??= button.textContent);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    getSelection().selectAllChildren(source); // no clipboard without https on another machine: mark it, and try as was once done
    if (!document.execCommand("copy")) return;
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1500);
}

function start() {
  byId("query").value = EXAMPLE.query;
  byId("passages").value = EXAMPLE.passages.join("\n");
  range();
  byId("form").addEventListener("submit", (event) => event.preventDefault());
  byId("form").addEventListener("input", ({ target }) => {
    if (target.id === "file") return;
    range();
    showFile();
    soon(target.tagName === "TEXTAREA" ? WAIT.typing : WAIT.choosing);
  });
  byId("file").addEventListener("change", ({ target }) => take(target.files));
  byId("forget").addEventListener("click", () => {
    state.file = null;
    showFile();
    byId("passages").focus();
    soon(0);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = byId("token").value.trim();
    byId("token").value = "";
    soon(0);
  });
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
  update();
}

start();
