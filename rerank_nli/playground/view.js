// How an answer looks. Texts become text nodes, never HTML.

const AT_ONCE = 500; // passages that are shown before someone asks for the others
const NAMES = ["entailment", "neutral", "contradiction"];
const VERDICTS = {
  supported: ["✓", "Supported"],
  refuted: ["✕", "Refuted"],
  insufficient: ["?", "Not settled"],
};

export const byId = (id) => document.getElementById(id);

export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** An element with properties and children; a text among them stays text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const decimal = (number) => number.toFixed(2).replace("-", "−");

/** Show what a request gave: kept and dropped passages, with what the verdict found in them. */
export function showRanking(asked, answer, verdict) {
  const marks = evidence(verdict);
  const row = (place) => (result) => passage(asked, result, place, marks.get(result.index));
  const dropped = answer.dropped ?? [];
  const { documents } = asked;
  byId("kept-title").textContent =
    asked.threshold === undefined ? `${counted(documents.length, "passage")}, in order` : `Kept: ${answer.results.length} of ${documents.length}`;
  fill("kept", answer.results, (result, at) => row(at + 1)(result));
  byId("dropped-section").hidden = !dropped.length;
  byId("dropped-title").textContent = `Filtered out: ${dropped.length}`;
  fill("dropped", dropped, row(null));
  byId("results").hidden = false;
}

/** Show the verdict, or why there is none. */
export function showVerdict(verdict, least, problem) {
  const card = byId("verdict");
  card.hidden = !verdict && !problem;
  card.dataset.label = verdict?.label ?? "";
  if (!verdict) {
    byId("verdict-label").textContent = "No verdict";
    byId("verdict-why").textContent = problem ?? "";
    return;
  }
  const [sign, label] = VERDICTS[verdict.label];
  byId("verdict-label").replaceChildren(make("span", { ariaHidden: "true" }, sign), ` ${label}`, make("small", {}, ` ${decimal(verdict.confidence)}`));
  const { supporting, refuting } = verdict;
  byId("verdict-why").replaceChildren(...pointed(supporting.passages, "supports", "support"), ...pointed(refuting.passages, "contradicts", "contradict"), `By probabilities of at least ${decimal(least)}, passage to claim.`);
}

/** "Passage 3 supports it." with links to the passages, by their place as given. */
function pointed(passages, one, many) {
  if (!passages.length) return [];
  const links = passages.slice(0, 5).map((p) => make("a", { href: `#passage-${p.index + 1}` }, `${p.index + 1}`));
  const listed = links.flatMap((link, at) => (at ? [at === links.length - 1 && passages.length <= 5 ? " and " : ", ", link] : [link]));
  const rest = passages.length > 5 ? [` and ${passages.length - 5} more`] : [];
  return [passages.length === 1 ? "Passage " : "Passages ", ...listed, ...rest, ` ${passages.length === 1 ? one : many} it. `];
}

function fill(id, results, row) {
  const more = byId(`more-${id}`);
  byId(id).classList.toggle("long", results.length > 50);
  byId(id).replaceChildren(...results.slice(0, AT_ONCE).map(row));
  more.hidden = results.length <= AT_ONCE;
  more.textContent = `Show ${counted(results.length - AT_ONCE, "more passage")}`;
  more.onclick = () => {
    const others = results.slice(AT_ONCE).map((result, at) => row(result, AT_ONCE + at));
    byId(id).append(...others);
    more.hidden = true;
    others[0].tabIndex = -1;
    others[0].focus();
  };
}

/** Of each passage that the verdict rests on, the stretches that do: [start, end, how]. */
function evidence(verdict) {
  const marks = new Map();
  const add = (index, [start, end], how) => marks.set(index, [...(marks.get(index) ?? []), [start, end, how]]);
  for (const p of verdict?.supporting.passages ?? []) add(p.index, p.span, "supports");
  for (const p of verdict?.refuting.passages ?? []) add(p.index, p.refutation_span, "contradicts");
  return marks;
}

function passage(asked, result, place, marks) {
  const before = result.index + 1;
  const moved = place === null ? "" : place < before ? "▲ " : place > before ? "▼ " : "";
  return make(
    "li",
    { id: `passage-${before}`, className: "passage" },
    make("p", { className: "place" }, make("b", {}, place === null ? "–" : `${place}`), " ", make("span", { className: "quiet" }, make("span", { ariaHidden: "true" }, moved), `was ${before}`)),
    make(
      "div",
      {},
      make("p", { className: "text" }, ...marked(asked.documents[result.index], marks ?? window(result))),
      ...probabilities(result),
      ...(place === null ? [make("p", { className: "why" }, why(asked, result))] : []),
    ),
  );
}

/** What was read of a passage that is longer than the model takes at once. */
function window({ nli }) {
  return nli.windows > 1 ? [[...nli.span, "read"]] : [];
}

/** A text with stretches of it marked. Python counts characters where JavaScript counts UTF-16, so both are matched. */
function marked(text, marks) {
  if (!marks.length) return [text];
  const characters = Array.from(text);
  const cuts = [...new Set([0, characters.length, ...marks.flatMap(([start, end]) => [start, end])])].sort((a, b) => a - b);
  return cuts.slice(1).map((end, at) => {
    const start = cuts[at];
    const part = characters.slice(start, end).join("");
    const hows = marks.filter((mark) => mark[0] <= start && end <= mark[1]).map((mark) => mark[2]);
    return hows.length ? make("mark", { className: hows.join(" ") }, part) : part;
  });
}

function probabilities({ relevance_score: score, nli }) {
  const known = NAMES.filter((name) => nli[name] !== null);
  const bar = make("div", { className: "bar", ariaHidden: "true" });
  for (const name of NAMES) {
    const part = make("i", { className: name[0] });
    part.style.flexGrow = nli[name] ?? (name === "neutral" ? 1 - nli.entailment : 0);
    bar.append(part);
  }
  const numbers = known.map((name) => make("li", { className: `key ${name[0]}` }, `${name} ${decimal(nli[name])}`));
  return [bar, make("ul", { className: "numbers" }, ...numbers, make("li", { className: "score" }, `score ${decimal(score)}`))];
}

/** Why a passage was filtered out, in a sentence. */
function why({ threshold, keep }, { relevance_score: score, nli }) {
  const likeliest = NAMES.reduce((best, name) => ((nli[name] ?? 0) > (nli[best] ?? 0) ? name : best));
  const meaning = { entailment: "Entails it, though not clearly enough", neutral: "Neither supports nor contradicts it", contradiction: "Contradicts it" };
  const about = nli.windows ? (nli.neutral === null ? "" : `${meaning[likeliest]}: `) : "It is blank: ";
  const least = decimal(threshold);
  const reasons = {
    entailment: `score ${decimal(score)} is below ${least}`,
    contradiction: `contradiction ${decimal(nli.refutation ?? 0)} is below ${least}`,
    evidence: `neither score ${decimal(score)} nor contradiction ${decimal(nli.refutation ?? 0)} reaches ${least}`,
  };
  const sentence = about + reasons[keep];
  return sentence[0].toUpperCase() + sentence.slice(1);
}
