// Keeps a page up to date while it is looked at. Everything is there without this script.
//
// The event stream says that something has happened; what it looks like, only the server knows:
// the page is fetched again, and its parts that are marked "data-live" take the place of the old
// ones. A part in which the reader has the focus or has marked text stays as it is.

const stream = "/api/v1/events";
// Milliseconds between two looks: when something happens, and when nothing does (times that are
// told as "3 min ago" go on).
const pause = 1000;
const idle = 30000;

const lost = "The proxy does not answer";
const slow = "Updated every 30 s";

const button = document.getElementById("live-switch");
const state = document.getElementById("live-state");
let source = null;
let timer = 0;
let due = 0;
let looking = false;
let again = false;

function say(text) {
  if (state.textContent !== text) state.textContent = text;
}

function inUse(part) {
  const marked = document.getSelection();
  return part.contains(document.activeElement)
    || (marked !== null && !marked.isCollapsed && marked.intersectsNode?.(part));
}

function takeOver(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other !== null && other.innerHTML !== part.innerHTML && !inUse(part)) {
      part.replaceChildren(...other.childNodes);
    }
  }
}

async function look() {
  timer = 0;
  looking = true;
  again = false;
  let page = null;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (answer.ok) page = await answer.text();
  } catch {
    // What is said below holds for this too.
  }
  looking = false;
  // Paused, or out of sight, in the meantime.
  if (source === null) return;
  if (page === null) {
    say(lost);
  } else {
    takeOver(new DOMParser().parseFromString(page, "text/html"));
    if (source.readyState === EventSource.OPEN) say("");
  }
  plan(again ? pause : idle);
}

function plan(wait) {
  if (looking) {
    again = true;
    return;
  }
  const at = performance.now() + wait;
  if (timer !== 0 && due <= at) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(look, wait);
}

function begin() {
  source = new EventSource(stream);
  for (const kind of ["stats", "request", "fill", "job"]) {
    source.addEventListener(kind, () => plan(pause));
  }
  source.addEventListener("open", () => plan(0));
  // It connects again by itself, unless the server refuses: too many may follow already.
  source.addEventListener("error", () => {
    say(source.readyState === EventSource.CLOSED ? slow : lost);
  });
  plan(0);
}

function end() {
  source?.close();
  source = null;
  clearTimeout(timer);
  timer = 0;
}

function wanted() {
  return button.getAttribute("aria-pressed") === "true" && !document.hidden;
}

function follow() {
  if (wanted() && source === null) begin();
  if (!wanted()) end();
}

button.addEventListener("click", () => {
  const live = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(live));
  say(live ? "" : "Paused");
  follow();
});
document.addEventListener("visibilitychange", follow);
button.hidden = false;
follow();
