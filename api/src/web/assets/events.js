// Server-sent events over fetch: EventSource cannot send `Authorization`.

import { Problem, request } from "./api.js";

/** The server sends at least a comment every 15 s. A connection without one for that long is dead. */
const SILENCE_MS = 40_000;
const RETRY_MAX_MS = 30_000;

/** Splits text into events, as the HTML standard defines it. Calls `emit({type, data, id})`. */
export class EventParser {
  constructor(emit) {
    Object.assign(this, { emit, rest: "", retry: undefined, id: undefined });
    this.clear();
  }

  clear() { Object.assign(this, { type: "", data: [] }); }

  push(text) {
    // A CR at the end may be the first half of CR LF.
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    lines.forEach((line) => this.line(line));
  }

  line(line) {
    if (line === "") {
      if (this.type || this.data.length > 0) {
        this.emit({ type: this.type || "message", data: this.data.join("\n"), id: this.id });
      }
      return this.clear();
    }
    const [, name, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (name === "event") this.type = value;
    else if (name === "data") this.data.push(value);
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }
}

/**
 * A stream that reconnects with backoff until it is closed. Calls `onEvent({type, data, id})`, and `onState(state,
 * problem)`: "connecting", "open", "waiting" before the next attempt, "closed" after a response that no retry changes.
 */
export class Stream {
  constructor(path, { onEvent, onState, lastId }) {
    Object.assign(this, { path, onEvent, onState, lastId, attempt: 0, retry: 1000 });
    this.connect();
  }

  close() {
    this.controller?.abort();
    clearTimeout(this.timer);
    this.closed = true;
  }

  state(state, problem) {
    if (!this.closed) this.onState(state, problem);
  }

  async connect() {
    this.controller = new AbortController();
    this.state("connecting");
    try {
      await this.read(this.controller);
      this.again();
    } catch (error) {
      this.again(error instanceof Problem ? error : new Problem(0));
    }
  }

  async read(controller) {
    let silence;
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(), SILENCE_MS);
    };
    try {
      alive();
      const headers = { Accept: "text/event-stream", ...(this.lastId && { "Last-Event-ID": this.lastId }) };
      const response = await request(this.path, { signal: controller.signal, headers });
      if (!response.ok) throw await Problem.of(response);
      this.state("open");
      const parser = new EventParser((event) => {
        this.lastId = event.id ?? this.lastId;
        if (!this.closed) this.onEvent(event);
      });
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        alive();
        this.attempt = 0;
        parser.push(decoder.decode(value, { stream: true }));
        this.retry = parser.retry ?? this.retry;
      }
    } finally {
      clearTimeout(silence);
    }
  }

  /** Plans the next attempt. */
  again(problem) {
    if (this.closed) return;
    // Without caches, the service has no announcements of changes.
    if (problem && (!problem.passing || problem.code === "events_disabled")) {
      this.state("closed", problem);
      return this.close();
    }
    const pause = Math.min(RETRY_MAX_MS, this.retry * 2 ** this.attempt);
    const asked = (problem?.retryAfter ?? 0) * 1000;
    this.attempt += 1;
    this.state("waiting", problem);
    // With jitter, so that pages that a replica has disconnected do not return at the same moment.
    this.timer = setTimeout(() => this.connect(), Math.max(pause * (0.5 + Math.random() / 2), asked));
  }
}
