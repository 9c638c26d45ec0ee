// What others publish is only ever text here, and never longer than this.
const NAME_MAX = 32;
const TEXT_MAX = 2000;
const HISTORY = 100;
const NAMES_MAX = 500;
const TYPISTS_MAX = 20;

/** Text of somebody: bounded, without control and invisible characters but for line breaks and
 *  what joins emoji. Empty when it is none. */
function plain(text, length) {
  if (typeof text !== "string") return "";
  const visible = text.slice(0, length * 4).replace(/[^\P{C}\n\u200d]/gu, "");
  const short = length === NAME_MAX ? visible.replace(/\s+/g, " ") : visible.replace(/\n{3,}/g, "\n\n");
  return [...short.trim()].slice(0, length).join("");
}

/** What this window remembers: its name, which connections were its own, how far it has read. */
const memory = {
  get(area, key) {
    try { return JSON.parse(window[area].getItem(`tidemill-demo-${key}`)); } catch { return null; }
  },
  set(area, key, value) {
    try { window[area].setItem(`tidemill-demo-${key}`, JSON.stringify(value)); } catch { /* it is not kept */ }
  },
};

/** A room is three channels: what is said, what people are called, and who types.
 *
 *  Nobody here has an account, so a name is announced to the second one, whose history keeps it for
 *  a while, and announced again before that forgets it. Which connection announced it, wrote a
 *  message or types is what the server says of it. */
class Room {
  constructor(name, link, view) {
    Object.assign(this, { name, link, view, channel: `demo:${name}`, position: null, isLive: false });
    Object.assign(this, { held: [], lostAt: 0, members: new Set(), names: new Map(), typists: new Map() });
    this.unsent = new Map();
    // Where nobody is told who comes and goes, it is asked.
    this.asking = setInterval(() => { if (this.isLive && !document.hidden) this.askMembers(); }, 15000);
  }

  /** Calls only while this is the room that is shown. */
  here(act) {
    return (...told) => { if (room === this) act(...told); };
  }

  enter() {
    this.subscribe();
    this.link.ask("subscribe", { channel: `${this.channel}.names` });
    this.link.ask("subscribe", { channel: `${this.channel}.typing` });
    this.link.ask("history", { channel: `${this.channel}.names`, limit: HISTORY, reverse: true },
      this.here((_, { publications = [] }) => publications.reverse().forEach((pub) => this.named(pub))));
    this.askMembers();
    this.announce();
  }

  leave() {
    clearInterval(this.asking);
    clearTimeout(this.announcing);
    for (const client of this.typists.keys()) this.typed(client, false);
    for (const part of ["", ".names", ".typing"]) this.link.ask("unsubscribe", { channel: this.channel + part });
  }

  subscribe() {
    const recovery = this.position && { recover: true, ...this.position };
    this.link.ask("subscribe", { channel: this.channel, recoverable: true, join_leave: true, ...recovery },
      this.here((error, result) => {
        if (error) this.refused(error);
        else if (this.position && result.recovered) this.recovered(result.publications ?? []);
        else this.askHistory(result);
      }));
  }

  refused({ code, message }) {
    if (code === 0) return;
    const why = code === 102 ? "its namespace “demo” is switched off" : message;
    this.view.alarm(`The server does not let this page into the room: ${why} (${code}).`);
  }

  recovered(publications) {
    const others = publications.filter((pub) => !isOwn(pub)).length;
    this.back(others ? `${count(others, "message was", "messages were")} missed` : "nothing was missed");
    this.goLive(publications, "missed");
  }

  /** What is kept is shown first; what is said before it is here is held. */
  askHistory({ epoch, offset }) {
    const known = { channel: this.channel, limit: HISTORY, reverse: true };
    this.link.ask("history", known, this.here((error, { publications = [] }) => {
      if (error?.code === 0) return;
      const wasHere = this.position !== null;
      const before = this.position ?? memory.get("sessionStorage", `read-${this.name}`);
      const read = before?.epoch === epoch ? before.offset : 0;
      const isNew = (pub) => pub.offset > read;
      publications.reverse();
      this.back("some of what was said meanwhile may be lost");
      this.position = epoch ? { epoch, offset: wasHere ? read : 0 } : null;
      if (!wasHere && read) {
        const others = publications.filter((pub) => isNew(pub) && !isOwn(pub)).length;
        publications.filter((pub) => !isNew(pub)).forEach((pub) => this.show(pub, "old"));
        if (others) this.view.note(`${count(others, "message", "messages")} since you were here`, "back");
      }
      this.goLive(publications.filter(isNew), wasHere || read ? "missed" : "old");
      this.advance(offset);
      this.view.bottom();
    }));
  }

  /** From here on, what comes is shown as it comes. What could not be said is said. */
  goLive(publications, kind) {
    for (const pub of publications) this.show(pub, kind);
    this.isLive = true;
    for (const pub of this.held.splice(0)) this.show(pub, "new");
    for (const id of this.unsent.keys()) this.publish(id);
    this.view.empty(true);
  }

  lost() {
    if (this.isLive) this.lostAt = Date.now();
    if (this.isLive) this.lostNote = this.view.note(`Connection lost at ${clock(this.lostAt)}`, "lost");
    this.isLive = false;
    for (const client of this.typists.keys()) this.typed(client, false);
  }

  back(what) {
    if (!this.lostNote) return;
    const seconds = Math.max(1, Math.round((Date.now() - this.lostAt) / 1000));
    this.lostNote.textContent = `Back after ${count(seconds, "second", "seconds")}: ${what}`;
    this.lostNote.classList.replace("lost", "back");
    this.lostNote = null;
  }

  push({ channel, pub, join, leave, unsubscribe }) {
    const part = channel.startsWith(this.channel) ? channel.slice(this.channel.length) : null;
    if (pub && part === "") this.isLive ? this.show(pub, "new") : this.held.push(pub);
    if (pub && part === ".names") this.named(pub);
    if (pub?.info && part === ".typing") this.typed(pub.info.client, pub.data?.typing === true);
    if (join && part === "") this.members?.add(join.info.client);
    if (leave && part === "") this.members?.delete(leave.info.client);
    if (leave && part === "") this.typed(leave.info.client, false);
    if (join || leave) this.view.people(this);
    if (unsubscribe && part !== null) this.unsubscribed(part, unsubscribe);
  }

  /** From 2500 on, whoever subscribes anew is welcome. */
  unsubscribed(part, { code, reason }) {
    if (part === "") this.isLive = false;
    if (code < 2500) this.view.alarm(`The server has taken this page out of the room: ${reason} (${code}).`);
    else if (part === "") this.subscribe();
    else this.link.ask("subscribe", { channel: this.channel + part });
  }

  advance(offset) {
    if (!this.position || !(offset > this.position.offset)) return;
    this.position.offset = offset;
    memory.set("sessionStorage", `read-${this.name}`, this.position);
  }

  /** Shows a publication, once: what has an offset that was seen is known. */
  show(pub, kind) {
    if (pub.offset && this.position && pub.offset <= this.position.offset) return;
    this.advance(pub.offset);
    const text = plain(pub.data?.text, TEXT_MAX);
    if (!text) return;
    const own = isOwn(pub), said = own && this.unsent.get(pub.data.id);
    if (said) said.item.remove();
    if (said) this.unsent.delete(pub.data.id);
    // The writer's clock counts for what was not seen coming, as far as it can be right.
    const now = Date.now(), is = pub.data.at > now - 864e5 && pub.data.at <= now;
    const at = kind === "new" ? now : is ? pub.data.at : 0;
    const client = String(pub.info?.client ?? ""), who = plain(pub.data.name, NAME_MAX) || "somebody";
    this.view.message({ client, who, text, at, own, kind: own ? "" : kind });
    if (!this.names.has(client)) this.named(pub);
    this.typed(client, false);
  }

  say(text) {
    const id = Array.from(crypto.getRandomValues(new Uint32Array(3))).join("-");
    const item = this.view.message({ client: me, who: name, text, at: Date.now(), own: true, kind: "waiting" });
    this.unsent.set(id, { text, item, isOut: false });
    if (this.isLive) this.publish(id);
  }

  /** A message that was on its way when the connection was lost would have been recovered, had it
   *  arrived. Where there is no recovery, nobody knows; then its writer decides. */
  publish(id) {
    const message = this.unsent.get(id);
    if (message.isRefused) return;
    if (message.isOut && !this.position) return this.unpublished(id, "it may have arrived");
    message.isOut = true;
    const data = { id, name, text: message.text, at: Date.now() };
    this.link.ask("publish", { channel: this.channel, data }, this.here((error) => {
      if (error && error.code !== 0) this.unpublished(id, `${error.message} (${error.code})`);
    }));
  }

  unpublished(id, why) {
    const message = this.unsent.get(id);
    if (!message) return;
    message.isRefused = true;
    this.view.refuse(message.item, why, () => {
      message.item.remove();
      this.unsent.delete(id);
      this.say(message.text);
    });
  }

  announce() {
    clearTimeout(this.announcing);
    if (!name) return;
    this.link.ask("publish", { channel: `${this.channel}.names`, data: { name } });
    this.announcing = setTimeout(() => this.announce(), 180000 + Math.random() * 40000);
  }

  named({ info, data }) {
    const called = plain(data?.name, NAME_MAX);
    if (!info?.client || !called) return;
    this.names.delete(info.client);
    this.names.set(info.client, called);
    if (this.names.size > NAMES_MAX) this.names.delete(this.names.keys().next().value);
    this.view.people(this);
  }

  /** Nobody types for long without saying so again. */
  typed(client, isTyping) {
    const known = this.typists.get(client);
    clearTimeout(known);
    this.typists.delete(client);
    if (isTyping && client !== me && this.typists.size < TYPISTS_MAX) {
      this.typists.set(client, setTimeout(() => this.typed(client, false), 4000));
    }
    const names = [...this.typists.keys()].map((typist) => this.names.get(typist) ?? "Somebody");
    if (isTyping || known) this.view.typing(names);
  }

  askMembers() {
    this.link.ask("presence", { channel: this.channel }, this.here((error, { presence = {} }) => {
      if (error?.code === 0) return;
      this.members = error ? null : new Set(Object.keys(presence));
      this.view.people(this);
    }));
  }
}
