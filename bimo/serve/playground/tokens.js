// From the log-probabilities of an answer to the parts of its text: {text, logprob, top, pieces}.
//
// A token may be a part of a character (its name is then "bytes:\xe4\xbd"); such tokens are one part together.

const decoder = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();
const PARTIAL = /^bytes:((?:\\x[0-9a-fA-F]{2})+)$/;

/** The bytes of a token as the API names it. */
export function bytesOf(token) {
  const partial = PARTIAL.exec(token);
  if (!partial) return [...encoder.encode(token)];
  return partial[1].split("\\x").slice(1).map((hex) => parseInt(hex, 16));
}

function decoded(bytes) {
  try {
    return decoder.decode(new Uint8Array(bytes));
  } catch (error) {
    if (error instanceof TypeError) return null; // the character goes on in the next token
    throw error;
  }
}

/** Tokens {token, logprob, top: [{token, logprob}]} of a legacy completion's ``logprobs``. */
export function fromCompletion(logprobs) {
  if (!logprobs || !logprobs.tokens) return [];
  return logprobs.tokens.map((token, index) => ({
    token,
    logprob: logprobs.token_logprobs[index],
    top: ordered(Object.entries((logprobs.top_logprobs && logprobs.top_logprobs[index]) || {})),
  }));
}

/** The same of a chat completion's ``logprobs``. */
export function fromChat(logprobs) {
  if (!logprobs || !logprobs.content) return [];
  return logprobs.content.map((one) => ({
    token: nameOf(one),
    logprob: one.logprob,
    top: ordered((one.top_logprobs || []).map((other) => [nameOf(other), other.logprob])),
  }));
}

function nameOf({ token, bytes }) {
  if (!bytes || decoded(bytes) !== null) return token;
  return "bytes:" + bytes.map((byte) => "\\x" + byte.toString(16).padStart(2, "0")).join("");
}

function ordered(pairs) {
  return pairs.map(([token, logprob]) => ({ token, logprob })).sort((a, b) => b.logprob - a.logprob);
}

/** Lays tokens along a text that both come in pieces, and not always in the same ones. */
export class TokenReader {
  #text = "";
  #tokens = [];

  /** The parts that are certain after ``text`` and ``tokens`` came. */
  push(text, tokens) {
    this.#text += text;
    this.#tokens.push(...tokens);
    const parts = [];
    while (this.#tokens.length) {
      const part = this.#next();
      if (part === null || (part.text !== this.#text && part.text.startsWith(this.#text))) break;
      if (!this.#text.startsWith(part.text)) {
        if (!isSpecial(part.text)) this.#tokens = [];
        this.#tokens.shift(); // a sign of the model's, such as that of a text's start: no text
        continue;
      }
      this.#tokens.splice(0, part.pieces.length);
      this.#text = this.#text.slice(part.text.length);
      if (part.text) parts.push(part);
    }
    if (!this.#tokens.length) parts.push(...this.end());
    return parts;
  }

  /** What is left at the end of the answer, without probabilities. */
  end() {
    const rest = this.#text;
    this.#text = "";
    this.#tokens = [];
    return rest ? [{ text: rest }] : [];
  }

  #next() {
    const bytes = [];
    for (let count = 1; count <= Math.min(4, this.#tokens.length); count++) {
      bytes.push(...bytesOf(this.#tokens[count - 1].token));
      const text = decoded(bytes);
      if (text !== null) return joined(text, this.#tokens.slice(0, count));
    }
    return this.#tokens.length < 4 ? null : joined("\ufffd", this.#tokens.slice(0, 1));
  }
}

function joined(text, pieces) {
  const known = pieces.every((piece) => typeof piece.logprob === "number");
  return {
    text,
    logprob: known ? pieces.reduce((sum, piece) => sum + piece.logprob, 0) : null,
    top: pieces[0].top,
    pieces,
  };
}

/** Whether a token of this name ends a text rather than being part of it. */
export function isSpecial(token) {
  return /^<\|[^|<>\n]{1,40}\|>$|^<\/?s>$|^\[(?:SEP|CLS|EOS|BOS)\]$|^<(?:eos|bos|pad|end_of_turn)>$/.test(token);
}

export function isPartial(token) {
  return PARTIAL.test(token);
}
