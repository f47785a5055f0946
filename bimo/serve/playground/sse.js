// Server-sent events, as far as streams of answers use them: the data of each event.

/** Splits what comes into events; ``push`` gives the data of those that are whole. */
export class EventReader {
  #rest = "";
  #data = [];

  push(text) {
    const events = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}

/**
 * The objects of a streamed answer, until [DONE]; ``body`` is a stream of bytes.
 *
 * Throws a TypeError when it breaks off before, as the browser does when the connection breaks.
 */
export async function* objects(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const events = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new TypeError("the answer broke off");
      for (const data of events.push(decoder.decode(value, { stream: true }))) {
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // an aborted stream cannot be cancelled again, and need not be
  }
}
