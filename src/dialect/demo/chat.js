let me = "", room = null, failures = 0, lastTyped = 0;
let name = plain(memory.get("sessionStorage", "name") ?? memory.get("localStorage", "name"), NAME_MAX);
// A connection's id cannot be claimed by others, so what came from one of ours is our own.
const ours = new Set(memory.get("sessionStorage", "clients") ?? []);
const isOwn = (pub) => ours.has(pub.info?.client);

const address = new URL("connection/websocket", location.href.replace(/[?#].*$/, ""));
address.protocol = address.protocol.replace("http", "ws");
// A token in the address of the page (?token=) goes along.
const token = new URLSearchParams(location.search).get("token");

const link = new Link(address.href, {
  open() {
    link.ask("connect", { name: "demo", ...(token && { token }) }, welcomed);
    room.enter();
  },
  push(push) {
    room.push(push);
  },
  closed(code, reason, isOver) {
    failures += 1;
    room.lost();
    view.state("closed", isOver ? "closed" : "reconnecting");
    const what = reason || "a message was too large";
    if (isOver) view.alarm(`The server has closed the connection: ${what} (${code}).`);
    else if (failures > 1) diagnose();
  },
});

function welcomed(error, result) {
  if (error?.code === 0) return;
  if (error) return view.alarm(`The server does not let this page in: ${error.message} (${error.code}).`);
  failures = 0;
  me = String(result.client);
  ours.add(me);
  memory.set("sessionStorage", "clients", [...ours].slice(-50));
  link.greeted(result);
  view.state("open", "connected");
  view.alarm("");
}

/** A browser does not tell why a WebSocket was refused; a plain request to its path does. */
async function diagnose() {
  const path = address.href.replace(/^ws/, "http");
  const status = await fetch(path, { cache: "no-store" }).then((answer) => answer.status, () => 0);
  if (room.isLive) return;
  const why = {
    0: "The server does not answer.",
    404: "This server does not serve its native protocol: TIDEMILL_DIALECTS leaves “native” out.",
    503: "The server is full or shutting down.",
  };
  view.alarm(`${why[status] ?? "The server does not take this page's connection."} It is tried again.`);
}

function visit() {
  let wanted = location.hash.slice(1);
  try { wanted = decodeURIComponent(wanted); } catch { /* as it stands */ }
  wanted = [...wanted.normalize().replace(/[^\p{L}\p{N}_-]/gu, "")].slice(0, 32).join("") || "lobby";
  if (room?.name === wanted) return;
  room?.leave();
  room = new Room(wanted, link, view);
  view.room(wanted);
  view.unread(0);
  view.people(room);
  if (link.isOpen) room.enter();
}

function askName() {
  byId("name").value = name;
  byId("ask").showModal();
  byId("name").select();
}

byId("ask").oncancel = (event) => { if (!name) event.preventDefault(); };
byId("ask").querySelector("form").onsubmit = (event) => {
  const wanted = plain(byId("name").value, NAME_MAX);
  if (!wanted) return event.preventDefault();
  name = wanted;
  memory.set("sessionStorage", "name", name);
  memory.set("localStorage", "name", name);
  view.greet();
  room.announce();
  view.people(room);
  setTimeout(() => byId("text").focus());
};

byId("say").onsubmit = (event) => {
  event.preventDefault();
  const text = plain(byId("text").value, TEXT_MAX);
  if (!text) return;
  if (!name) return askName();
  byId("text").value = "";
  lastTyped = 0;
  byId("text").oninput();
  room.say(text);
  byId("text").focus();
};
byId("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("say").requestSubmit();
};
// That somebody types is said at once, and again while it goes on; a message itself ends it.
byId("text").oninput = () => {
  const field = byId("text"), isTyping = field.value !== "", now = Date.now();
  field.style.height = "";
  field.style.height = `${Math.min(field.scrollHeight + 2, 144)}px`;
  byId("send").disabled = !field.value.trim();
  if (isTyping ? now - lastTyped < 2000 : !lastTyped) return;
  lastTyped = isTyping ? now : 0;
  const typing = { channel: `${room.channel}.typing`, data: { typing: isTyping } };
  if (name && room.isLive) link.ask("publish", typing);
};
let staysAtEnd = true;
byId("log").onscroll = () => {
  staysAtEnd = view.isAtEnd();
  if (staysAtEnd) byId("newer").hidden = true;
};
// A keyboard or an alert takes its space from the log, whose end stays in sight.
new ResizeObserver(() => { if (staysAtEnd) view.bottom(); }).observe(byId("log"));
byId("newer").onclick = view.bottom;
byId("rename").onclick = askName;
byId("again").onclick = () => { view.alarm(""); link.again(); };
byId("people-open").onclick = () => view.showPeople(!byId("app").classList.contains("shows-people"));
document.onvisibilitychange = () => {
  if (document.hidden) return;
  view.unread(0);
  link.hurry();
};
window.onhashchange = visit;
window.ononline = () => link.hurry();
window.onoffline = () => link.drop();

byId("send").disabled = true;
byId("echo").search = location.search;
visit();
if (name) view.greet(); else askName();
link.connect();
