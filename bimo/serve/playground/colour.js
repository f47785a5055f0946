// How a token's probability becomes a colour: one hue for each reading, and only its strength varies, so that the
// colours can be told apart without telling hues apart.

export const READINGS = ["off", "probability", "surprise"];
export const MOST_BITS = 12; // of surprise; beyond, the colour does not grow

export const probability = (logprob) => Math.exp(logprob);
export const bits = (logprob) => Math.max(0, -logprob / Math.LN2);

/** The strength of a token's colour, from 0 to 1; null when it has none. */
export function strength(logprob, reading) {
  if (reading === "off" || typeof logprob !== "number") return null;
  const value = reading === "probability" ? probability(logprob) : bits(logprob) / MOST_BITS;
  return Math.round(Math.min(1, Math.max(0, value)) * 100) / 100;
}

/** A probability as people read it: "82%", "3.1%", "0.04%", "<0.01%". */
export function percent(p) {
  const value = 100 * p;
  if (value >= 99.95) return value >= 99.995 ? "100%" : ">99.9%";
  if (value >= 9.95) return value.toFixed(0) + "%";
  if (value >= 0.995) return value.toFixed(1) + "%";
  return value >= 0.01 ? value.toFixed(2) + "%" : "<0.01%";
}

/** What a text cost the model: mean bits a token and a byte, and the perplexity, of the scored parts. */
export function measure(parts) {
  const scored = parts.filter((part) => typeof part.logprob === "number");
  if (!scored.length) return null;
  const nats = scored.reduce((sum, part) => sum - part.logprob, 0);
  const tokens = scored.reduce((sum, part) => sum + (part.pieces ? part.pieces.length : 1), 0);
  const bytes = new TextEncoder().encode(scored.map((part) => part.text).join("")).length;
  return { tokens, bitsToken: nats / Math.LN2 / tokens, bitsByte: nats / Math.LN2 / bytes, perplexity: Math.exp(nats / tokens) };
}

/** A token as it can be seen: spaces and line ends have signs of their own; of a part of a character, what it can begin. */
export function visible(token) {
  const partial = /^bytes:((?:\\x[0-9a-fA-F]{2})+)$/.exec(token);
  if (partial) return begun(partial[1].split("\\x").slice(1).map((hex) => parseInt(hex, 16)));
  return token.replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣").replace(/[\u200b-\u200f\ufeff]/g, "◌") || "∅";
}

/** The first and last character of UTF-8 that begin with some bytes, or the bytes where that says nothing. */
function begun(bytes) {
  const start = bytes.findIndex((byte) => byte >= 0xe3 && byte <= 0xef); // of three bytes, as Chinese ones are
  const before = new TextDecoder().decode(new Uint8Array(bytes.slice(0, Math.max(0, start))));
  if (start < 0 || bytes.length - start > 2 || before.includes("\ufffd")) return "⟨" + bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ") + "⟩";
  const filled = (rest) => new TextDecoder().decode(new Uint8Array([...bytes.slice(start), rest, rest].slice(0, 3)));
  return `${visible(before).replace("∅", "")}${filled(0x80)}…${filled(0xbf)}`;
}
