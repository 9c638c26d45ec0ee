const LOG_MAX = 500;
const PEOPLE_MAX = 100;
const byId = (id) => document.getElementById(id);
const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

function element(kind, className = "", text = "", ...inside) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text) made.textContent = text;
  made.append(...inside);
  return made;
}

/** Draws; decides nothing. */
const view = {
  state(kind, text) {
    byId("state").className = `state ${kind}`;
    byId("state").querySelector("span").textContent = text;
  },

  alarm(text) {
    byId("alert").querySelector("p").textContent = text;
    byId("alert").hidden = !text;
  },

  /** Begins an empty room. */
  room(wanted) {
    byId("log").replaceChildren();
    byId("typing").replaceChildren();
    byId("title").textContent = `#${wanted}`;
    byId("newer").hidden = true;
    const rooms = [...new Set(["lobby", "tea", "harbour", wanted])].map((other) => {
      const link = element("a", "", `#${other}`);
      link.href = `#${encodeURIComponent(other)}`;
      if (other === wanted) link.ariaCurrent = "page";
      return element("li", "", "", link);
    });
    byId("rooms").replaceChildren(...rooms);
    view.showPeople(false);
    view.empty(false);
  },

  /** Puts a message at the end, but before what is not sent yet. */
  message({ client, who, text, at, own, kind }) {
    const log = byId("log"), isAtEnd = view.isAtEnd();
    const words = element("p", "text", text);
    const time = element("time", "", kind === "waiting" ? "sending…" : at ? clock(at) : "earlier");
    words.dir = "auto";
    if (at) time.dateTime = new Date(at).toISOString();
    const bubble = element("div", "bubble", "", words, element("footer", "", "", time));
    const item = element("li", `message ${own ? "mine" : "theirs"} ${kind}`, "",
      view.avatar(who), element("p", "who", own ? "You" : who), bubble);
    const author = own ? "" : `${client} ${who}`;
    Object.assign(item.dataset, { author, at });
    log.insertBefore(item, kind === "waiting" ? null : log.querySelector(".waiting, .refused"));
    const before = item.previousElementSibling?.dataset;
    if (before?.author === author && at - before.at < 120000) item.classList.add("again");
    while (log.children.length > LOG_MAX) log.firstChild.remove();
    view.empty(true);
    if (kind === "new" && document.hidden) view.unread(1);
    if (isAtEnd || own) view.bottom(); else byId("newer").hidden = false;
    return item;
  },

  refuse(item, why, retry) {
    const button = element("button", "retry", "Try again");
    button.onclick = retry;
    item.classList.replace("waiting", "refused");
    item.querySelector("footer").replaceChildren(`Not sent: ${why}`, button);
    view.bottom();
  },

  note(text, kind) {
    const isAtEnd = view.isAtEnd(), item = element("li", `note ${kind}`, text);
    byId("log").insertBefore(item, byId("log").querySelector(".waiting, .refused"));
    if (isAtEnd) view.bottom();
    return item;
  },

  isAtEnd() {
    const log = byId("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  },

  bottom() {
    byId("log").scrollTop = byId("log").scrollHeight;
    byId("newer").hidden = true;
  },

  empty(isKnown) {
    byId("empty").hidden = !isKnown || byId("log").querySelector(".message") !== null;
  },

  typing(names) {
    const [is, several] = [names.length > 1 ? "are" : "is", "Several people are typing"];
    const text = names.length > 2 ? several : `${names.join(" and ")} ${is} typing`;
    const dots = element("div", "dots", "", element("i"), element("i"), element("i"));
    byId("typing").replaceChildren(...(names.length ? [dots, element("span", "", text)] : []));
  },

  /** Draws who is here, soon: many may come at once. */
  people(room) {
    clearTimeout(view.drawing);
    view.drawing = setTimeout(() => view.drawPeople(room), 30);
  },

  drawPeople({ members, names }) {
    const called = (client) => names.get(client) ?? (client === me && name ? name : "guest");
    const people = [...members ?? []].map((client) => ({ client, called: called(client) }));
    people.sort((a, b) => (b.client === me) - (a.client === me) || a.called.localeCompare(b.called));
    const items = people.slice(0, PEOPLE_MAX).map(({ client, called }) => element("li", "", "",
      view.avatar(called), element("span", "", called), element("small", "", client === me ? "you" : "")));
    if (people.length > PEOPLE_MAX) items.push(element("li", "", `and ${people.length - PEOPLE_MAX} more`));
    byId("people").replaceChildren(...items);
    byId("count").textContent = members ? `· ${members.size}` : "";
    byId("nobody").hidden = members !== null;
    byId("people-open").textContent = members ? count(members.size, "person", "people") : "People";
  },

  showPeople(isShown) {
    byId("app").classList.toggle("shows-people", isShown);
    byId("people-open").ariaExpanded = String(isShown);
  },

  avatar(called) {
    const words = called.split(" ").filter(Boolean).slice(0, 2);
    const made = element("div", "avatar", words.map((word) => [...word][0]).join("").toUpperCase());
    made.ariaHidden = "true";
    let hue = 0;
    for (const character of called) hue = (hue * 31 + character.codePointAt(0)) % 360;
    made.style.setProperty("--hue", hue);
    return made;
  },

  /** Counts in the title what came while nobody looked. */
  unread(more) {
    view.unseen = more ? (view.unseen ?? 0) + more : 0;
    document.title = `${view.unseen ? `(${view.unseen}) ` : ""}#${room.name}: Tidemill`;
  },

  greet() {
    byId("rename").hidden = false;
    byId("rename").querySelector("span").textContent = name;
    byId("rename").ariaLabel = `Your name is ${name}. Change it`;
  },
};
