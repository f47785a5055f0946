// OpenAI's client for Node against a live server: prints what it was given, for the test to compare.

import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = "tiny";
const messages = [{ role: "user", content: "to be? 话说" }];
const found = { models: [] };

for await (const one of client.models.list()) found.models.push(one.id);
found.completion = (await client.completions.create({ model, prompt: "话说", temperature: 0, max_tokens: 11 })).choices[0].text;
found.chat = (await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 11 })).choices[0].message.content;

const stream = await client.chat.completions.create({
  model, messages, temperature: 0, max_tokens: 11, stream: true, stream_options: { include_usage: true },
});
found.streamed = "";
for await (const chunk of stream) {
  found.streamed += chunk.choices[0]?.delta.content ?? "";
  found.usage = chunk.usage ?? found.usage;
}

const events = await client.responses.create({ model, input: messages[0].content, temperature: 0, max_output_tokens: 11, stream: true });
found.response = "";
for await (const event of events) if (event.type === "response.output_text.delta") found.response += event.delta;

found.embedding = (await client.embeddings.create({ model, input: "话说" })).data[0].embedding.length;
try {
  await client.completions.create({ model: "nope", prompt: "x" });
} catch (error) {
  found.error = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
}
console.log(JSON.stringify(found));
