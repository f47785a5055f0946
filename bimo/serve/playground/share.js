// The state of the page in the address, behind "#": it never leaves the browser unless the address is passed on.

const MOST = 200_000; // characters; a longer fragment is not read
const MOST_BYTES = 2_000_000; // that it may unfold to

function toBase64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function fromBase64(text) {
  return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
}

async function through(bytes, transform) {
  const reader = new Blob([bytes]).stream().pipeThrough(transform).getReader();
  const pieces = [];
  let length = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    length += piece.value.length;
    if (length > MOST_BYTES) throw new RangeError("too long");
    pieces.push(piece.value);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** The fragment (without "#") that holds a state. */
export async function packed(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  return "s=" + toBase64(await through(bytes, new CompressionStream("deflate-raw")));
}

/** The state in a fragment; null when there is none, or none that can be read. */
export async function unpacked(fragment) {
  const found = /^#?s=([A-Za-z0-9_-]+)$/.exec(fragment);
  if (!found || fragment.length > MOST) return null;
  try {
    const bytes = await through(fromBase64(found[1]), new DecompressionStream("deflate-raw"));
    const state = JSON.parse(new TextDecoder().decode(bytes));
    return typeof state === "object" ? state : null;
  } catch {
    return null; // whatever is wrong with it, an address that cannot be read holds nothing
  }
}
