// The service over HTTP: JSON, and streams of server-sent events read from a fetch so that they can be broken off.

export class ServiceError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askForToken = async () => {};
/** Who is asked when the service wants its token. */
export const onTokenWanted = (ask) => { askForToken = ask; };

async function send(method, path, body, signal) {
  const form = body instanceof FormData;
  const headers = body && !form ? { "Content-Type": "application/json" } : {};
  const content = body && !form ? JSON.stringify(body) : body;
  let response;
  try {
    response = await fetch(path, { method, headers, body: content, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "network", String(error.message));
  }
  if (response.ok) return response;
  let fault = {};
  try { fault = (await response.json()).error; } catch { /* not ours: the status says it */ }
  if (response.status === 401 && path !== "/api/session") {
    await askForToken();
    return send(method, path, body, signal);
  }
  throw new ServiceError(response.status, fault.code ?? "unknown", fault.message ?? response.statusText);
}

async function json(method, path, body) {
  const response = await send(method, path, body);
  return response.status === 204 ? null : response.json();
}

export const get = (path) => json("GET", path);
export const post = (path, body = {}) => json("POST", path, body);
export const patch = (path, body) => json("PATCH", path, body);
export const remove = (path) => json("DELETE", path);

/** Events of a stream as {event, data}, until it ends or `signal` breaks it off. */
export async function* stream(path, body, signal) {
  const response = await send("POST", path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held += value;
      for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
        const lines = held.slice(0, end).split("\n");
        const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
        const data = field("data");
        if (data) yield { event: field("event") ?? "message", data: JSON.parse(data) };
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw error instanceof ServiceError ? error : new ServiceError(0, "network", String(error.message));
  } finally {
    reader.cancel().catch(() => {});
  }
}
