// The text of Complete with its past: which tree, which node of it is on the page, and every step to and fro.

import * as growth from "./growth.js";
import { shared } from "./growth.js";

const PAUSE = 900; // milliseconds without a key after which typing is a new step to undo
const MOST_STEPS = 300;

export class Draft {
  #past = [];
  #future = [];
  #session = null; // the tree before the typing of now began
  #typed = { time: 0, kind: "" };

  constructor() {
    this.tree = growth.emptyTree();
    this.at = growth.ROOT;
    this.scores = null; // {text, parts}: the text as the model reads it
  }

  /** What is needed to go on another time. */
  kept() {
    return { tree: this.tree, at: this.at };
  }

  /** Go on with what was kept; throws a TypeError when it is none. */
  resume({ tree, at }) {
    growth.textOf(tree, at);
    Object.assign(this, { tree, at });
  }

  get text() {
    return growth.textOf(this.tree, this.at);
  }

  get empty() {
    return this.tree.next === 1;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** A step begins that can be undone. */
  step() {
    this.#past.push({ tree: this.tree, at: this.at });
    if (this.#past.length > MOST_STEPS) this.#past.shift();
    this.#future = [];
    this.#session = null;
    this.#typed = { time: 0, kind: "" };
  }

  /** The text was changed by hand. */
  edit(text, kind, now) {
    if (text === this.text) return;
    const session = this.#session || { tree: this.tree, at: this.at };
    const pause = now - this.#typed.time > PAUSE || kind !== this.#typed.kind || kind === "insertFromPaste";
    if (pause) this.step();
    this.#session = session;
    this.#typed = { time: now, kind };
    [this.tree, this.at] = growth.graft(session.tree, session.at, text);
  }

  undo() {
    this.#move(this.#past, this.#future);
  }

  redo() {
    this.#move(this.#future, this.#past);
  }

  #move(from, to) {
    if (!from.length) return;
    to.push({ tree: this.tree, at: this.at });
    ({ tree: this.tree, at: this.at } = from.pop());
    this.#session = null;
    this.#typed = { time: 0, kind: "" };
  }

  go(id) {
    this.#session = null;
    this.#typed = { time: 0, kind: "" };
    this.at = id;
  }

  /** Nodes for what the model is about to write after the text of ``from``; the first of them is gone to. */
  sprout(from, count) {
    this.step();
    const ids = [];
    for (let index = 0; index < count; index++) {
      let id;
      [this.tree, id] = growth.addChild(this.tree, from, "model", []);
      ids.push(id);
    }
    this.at = ids[0];
    return ids;
  }

  /** Another token at ``offset``, and a node that begins with it. */
  branch(offset, part) {
    this.step();
    [this.tree, this.at] = growth.branchAt(this.tree, this.at, offset, part);
    return this.at;
  }

  /** The text as far as ``offset``. */
  cut(offset) {
    this.step();
    [this.tree, this.at] = growth.splitAt(this.tree, this.at, offset);
  }

  write(id, parts, end) {
    if (!(id in this.tree.nodes)) return; // removed, or undone, while it was written
    if (parts.length) this.tree = growth.append(this.tree, id, parts);
    if (end) this.tree = growth.finish(this.tree, id, end);
  }

  /** Remove a branch. */
  prune(id) {
    this.step();
    const { parent } = this.tree.nodes[id];
    const gone = growth.pathTo(this.tree, this.at).some((node) => node.id === id);
    this.tree = growth.remove(this.tree, id);
    if (gone) this.at = growth.deepest(this.tree, parent);
  }

  /** Forget nodes in which nothing was written; when none is left, it is as if nothing had been asked for. */
  tidy(ids, from) {
    const written = ids.some((id) => id in this.tree.nodes && growth.nodeText(this.tree.nodes[id]));
    if (!written && ids.includes(this.at)) this.#past.pop();
    for (const id of ids) {
      if (!(id in this.tree.nodes) || growth.nodeText(this.tree.nodes[id])) continue;
      this.tree = growth.remove(this.tree, id);
      if (this.at === id) this.at = ids.find((other) => other in this.tree.nodes) ?? from;
    }
  }

  /** The spans of the text: tokens of the model, and one's own words, in tokens where they were scored. */
  spans() {
    const places = growth.partsOf(this.tree, this.at);
    const valid = this.scores ? shared(this.scores.text, this.text) : 0;
    return places.flatMap((place) => {
      if (!valid || typeof place.part.logprob === "number") return [spanOf(place, place.part, place.start)];
      return this.#scoredSpans(place, valid);
    });
  }

  #scoredSpans(place, valid) {
    const spans = [];
    let done = place.start;
    for (const { start, end, part } of this.scores.places) {
      if (start < done || end > Math.min(place.end, valid)) continue;
      if (start > done) spans.push(spanOf(place, { text: place.part.text.slice(done - place.start, start - place.start) }, done));
      spans.push(spanOf(place, part, start));
      done = end;
    }
    if (done < place.end) spans.push(spanOf(place, { text: place.part.text.slice(done - place.start) }, done));
    return spans;
  }

  /** Keep how the model reads ``text``. */
  score(text, parts) {
    let start = 0;
    const places = parts.map((part) => ({ part, start, end: (start += part.text.length) }));
    this.scores = { text, places };
  }
}

function spanOf(place, part, start) {
  return { ...part, by: place.by, start, end: start + part.text.length };
}
