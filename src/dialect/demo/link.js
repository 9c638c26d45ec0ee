/** The native protocol: JSON, one command or reply a line. Connects again, ever more slowly, until
 *  the server says that there is no use in it. Answers are handed on in the order in which they
 *  come, also those that came in one frame. */
class Link {
  constructor(address, handlers) {
    Object.assign(this, { address, handlers, last: 0, wait: 500, lines: [], waiting: new Map() });
  }

  connect() {
    clearTimeout(this.timer);
    const socket = new WebSocket(this.address);
    const ifCurrent = (act) => (event) => { if (socket === this.socket) act(event); };
    Object.assign(this, { socket, isOver: false, silence: 15000 });
    this.heard();
    socket.onopen = ifCurrent(() => this.handlers.open());
    socket.onmessage = ifCurrent((event) => {
      this.heard();
      for (const line of String(event.data).split("\n")) if (line) this.receive(JSON.parse(line));
    });
    socket.onclose = ifCurrent((event) => this.closed(event.code, event.reason));
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** The server has taken the connection: how it pings, and whether it wants an answer. */
  greeted({ ping, pong }) {
    this.wait = 500;
    this.pongs = pong;
    this.silence = ping ? ping * 1000 + 10000 : 0;
    this.heard();
  }

  /** A server that says nothing for longer than its pings take is gone. */
  heard() {
    clearTimeout(this.listening);
    if (this.silence) this.listening = setTimeout(() => this.drop(), this.silence);
  }

  receive(message) {
    if (message.id) {
      const asked = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      asked?.done(message.error, message[asked.method] ?? {});
    } else if (message.push) {
      this.handlers.push(message.push);
    } else if (this.pongs) {
      this.send({});
    }
  }

  /** Calls `done(error, result)` once; an error with code 0 means that nobody knows the answer. */
  ask(method, parameters, done = () => {}) {
    if (!this.isOpen) return done(LOST, {});
    const id = ++this.last;
    this.waiting.set(id, { method, done });
    this.send({ id, [method]: parameters });
  }

  /** What is said in one go leaves in one frame. */
  send(command) {
    if (this.lines.push(JSON.stringify(command)) > 1) return;
    queueMicrotask(() => {
      const text = this.lines.splice(0).join("\n");
      if (this.isOpen) this.socket.send(text);
    });
  }

  closed(code, reason) {
    clearTimeout(this.listening);
    this.socket = null;
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const { done } of waiting) done(LOST, {});
    const isForGood = (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
    this.isOver = code === 1009 || (isForGood && reason !== "");
    const delay = this.wait * (0.5 + Math.random());
    this.wait = Math.min(this.wait * 2, 20000);
    if (!this.isOver) this.timer = setTimeout(() => this.connect(), delay);
    this.handlers.closed(code, reason, this.isOver);
  }

  /** Lets go of the connection without waiting for the server to agree. */
  drop() {
    const socket = this.socket;
    if (!socket) return;
    this.closed(0, "");
    socket.close();
  }

  /** Does not wait any longer. */
  hurry() {
    this.wait = 500;
    if (!this.socket && !this.isOver) this.connect();
  }

  again() {
    this.drop();
    this.wait = 500;
    this.connect();
  }
}

const LOST = { code: 0, message: "the connection was lost" };
