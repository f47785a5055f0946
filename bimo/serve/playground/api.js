// The server, as this page sees it: OpenAI's HTTP interface and nothing else.

import { keep, kept } from "./memory.js";
import { objects } from "./sse.js";

const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");
let key = kept("key") || "";

/** Use an API key until the browser's tab is closed. */
export function setKey(value) {
  key = value;
  keep("key", value);
}

export const hasKey = () => key !== "";
export const origin = () => BASE;

/** What went wrong, as the server or the browser says it. ``status`` is 0 when no answer came. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

async function ask(path, options = {}) {
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(BASE + path, { ...options, headers });
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError("", { status: 0 });
    throw error; // stopped by the user
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  const text = await answer.text();
  let found = {};
  try {
    found = JSON.parse(text).error || {};
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
  }
  return new ApiError(found.message || text.slice(0, 300) || answer.statusText, { status: answer.status, code: found.code, param: found.param });
}

/** The models: {id, context (tokens) or null, chat: whether they can; null when not said, precision and report: a path; or null}. */
export async function models() {
  const { data } = await (await ask("/v1/models")).json();
  const writing = data.filter(({ purpose }) => (purpose ?? "text") === "text");
  return (writing.length ? writing : data).map((model) => ({
    id: model.id,
    context: model.max_model_len ?? model.context_length ?? null,
    chat: model.chat ?? null,
    precision: model.precision ?? null,
    report: model.report ?? null,
  }));
}

export async function countTokens(model, prompt) {
  const answer = await ask("/tokenize", { method: "POST", body: JSON.stringify({ model, prompt }) });
  const { count, tokens } = await answer.json();
  return count ?? tokens.length;
}

/** The whole answer to a request that does not stream. */
export async function post(path, body, signal) {
  return (await ask(path, { method: "POST", body: JSON.stringify(body), signal })).json();
}

/** The chunks of a streamed answer, as they come. */
export async function* stream(path, body, signal) {
  const answer = await ask(path, { method: "POST", body: JSON.stringify(body), signal });
  try {
    for await (const chunk of objects(answer.body)) {
      if (chunk.error) throw new ApiError(chunk.error.message, { status: answer.status, code: chunk.error.code });
      yield chunk;
    }
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError) throw new ApiError("", { status: 0 });
    throw error;
  }
}
