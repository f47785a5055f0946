// One request under way: sends it, hands on what comes, and keeps what was sent and received for looking at.

import { stream } from "./api.js";
import { TokenReader, fromChat, fromCompletion } from "./tokens.js";

export const PATHS = { completion: "/v1/completions", chat: "/v1/chat/completions" };

/** The request last sent and the answer to it: {path, body, answer} for "view code". */
export const last = { path: null, body: null, answer: null };

export class Work {
  #control = new AbortController();

  constructor() {
    this.started = null;
    this.tokens = 0;
    this.usage = null;
    this.stopped = false;
  }

  stop() {
    this.stopped = true;
    this.#control.abort();
  }

  /** Tokens a second since the first token; null until that can be told. */
  get speed() {
    const seconds = ((this.ended ?? performance.now()) - this.started) / 1000;
    return this.started !== null && this.tokens > 1 && seconds > 0.05 ? (this.tokens - 1) / seconds : null;
  }

  /**
   * Send a request, and call ``take(index, parts, end)`` for what comes: parts of the choice ``index``, and why it
   * ended (else null). A stop by the user is no error; its choices end with "stopped".
   *
   * Throws an ApiError.
   */
  async run(kind, body, take) {
    const readers = Array.from({ length: body.n ?? 1 }, () => new TokenReader());
    const ended = new Set();
    Object.assign(last, { path: PATHS[kind], body, answer: [] });
    const kept = last.answer;
    try {
      for await (const chunk of stream(PATHS[kind], body, this.#control.signal)) {
        kept.push(chunk);
        this.usage = chunk.usage ?? this.usage;
        for (const choice of chunk.choices ?? []) this.#take(kind, choice, readers, ended, take);
      }
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) throw error;
    } finally {
      this.ended = performance.now();
      readers.forEach((reader, index) => {
        const rest = reader.end();
        if (rest.length || !ended.has(index)) take(index, rest, ended.has(index) ? null : "stopped");
      });
    }
  }

  #take(kind, choice, readers, ended, take) {
    const text = kind === "chat" ? choice.delta?.content ?? "" : choice.text ?? "";
    const tokens = kind === "chat" ? fromChat(choice.logprobs) : fromCompletion(choice.logprobs);
    const index = choice.index ?? 0;
    if (text || tokens.length) {
      this.started ??= performance.now();
      this.tokens += tokens.length || 1;
    }
    const parts = readers[index].push(text, tokens);
    const end = choice.finish_reason ?? null;
    if (end) {
      parts.push(...readers[index].end());
      ended.add(index);
    }
    if (parts.length || end) take(index, parts, end);
  }
}
