// A request as code that works: curl, Python and Node, the latter two with OpenAI's own clients.

export const LANGUAGES = ["curl", "python", "node"];
const EXTRA = ["min_p", "top_k", "repetition_penalty"]; // OpenAI's clients pass them only when told to
const PROBABILITIES = ["logprobs", "top_logprobs"];

/** The request without what only this page needs: the probabilities it colours with, and the count at the end. */
function plain(path, body) {
  const kept = Object.entries(body).filter(([key]) => key !== "stream_options" && !(PROBABILITIES.includes(key) && !body.echo));
  return { chat: path === "/v1/chat/completions", body: Object.fromEntries(kept) };
}

export function codeFor(language, origin, path, body, keyed) {
  const request = plain(path, body);
  if (language === "curl") return curl(origin, path, request.body, keyed);
  return language === "python" ? python(origin, request, keyed) : node(origin, request, keyed);
}

function curl(origin, path, body, keyed) {
  const key = keyed ? ' \\\n  -H "Authorization: Bearer $BIMO_API_KEY"' : "";
  const stream = body.stream ? "-N " : "";
  const json = JSON.stringify(body, null, 2).replace(/'/g, "'\\''");
  return `curl ${stream}${origin}${path} \\\n  -H "Content-Type: application/json"${key} \\\n  -d '${json}'`;
}

/** A value as Python writes it. */
export function pythonValue(value, indent = "") {
  const deeper = indent + "    ";
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return pythonText(value);
  if (typeof value !== "object") return String(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const rows = Array.isArray(value)
    ? value.map((one) => pythonValue(one, deeper))
    : Object.entries(value).map(([key, one]) => `${pythonText(key)}: ${pythonValue(one, deeper)}`);
  const line = open + rows.join(", ") + close;
  if (line.length + indent.length < 80 && !line.includes("\n")) return line;
  return `${open}\n${rows.map((row) => deeper + row + ",\n").join("")}${indent}${close}`;
}

function pythonText(text) {
  // JSON's escapes are Python's, but for halves of surrogate pairs and line separators, which both take as \u....
  return JSON.stringify(text).replace(/[\u007f-\u009f\u2028\u2029]/g, (one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));
}

function python(origin, { chat, body }, keyed) {
  const extra = Object.fromEntries(Object.entries(body).filter(([key]) => EXTRA.includes(key) || (!chat && key === "response_format")));
  const rows = Object.entries(body).filter(([key]) => !(key in extra)).map(([key, value]) => `    ${key}=${pythonValue(value, "    ")},\n`);
  if (Object.keys(extra).length) rows.push(`    extra_body=${pythonValue(extra, "    ")},\n`);
  const key = keyed ? 'os.environ["BIMO_API_KEY"]' : '"none"';
  const found = chat ? "choice.delta.content" : "choice.text";
  const result = body.stream
    ? `for chunk in answer:\n    for choice in chunk.choices:\n        print(${found} or "", end="", flush=True)\n`
    : "print(answer)\n";
  return `${keyed ? "import os\n\n" : ""}from openai import OpenAI\n\nclient = OpenAI(base_url=${pythonText(origin + "/v1")}, api_key=${key})\n`
    + `answer = client.${chat ? "chat.completions" : "completions"}.create(\n${rows.join("")})\n${result}`;
}

function node(origin, { chat, body }, keyed) {
  const key = keyed ? "process.env.BIMO_API_KEY" : '"none"';
  const result = body.stream
    ? `for await (const chunk of answer) {\n  for (const choice of chunk.choices) process.stdout.write(${chat ? "choice.delta.content" : "choice.text"} ?? "");\n}\n`
    : "console.log(answer);\n";
  return `import OpenAI from "openai"; // in a file that ends in .mjs\n\nconst client = new OpenAI({ baseURL: ${JSON.stringify(origin + "/v1")}, apiKey: ${key} });\n`
    + `const answer = await client.${chat ? "chat.completions" : "completions"}.create(${JSON.stringify(body, null, 2)});\n${result}`;
}
