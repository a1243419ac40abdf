// Follows the events and asks the server for this page again when something has
// happened. The server alone knows how things look; what is already shown and has
// not changed stays in place, so that no picture flickers.

const body = document.body
const sign = document.getElementById('live')
const types = ['requested', 'dispatching', 'dispatched', 'delivered', 'output_succeeded', 'output_failed', 'completed']

let source = null
let heard = Number(body.dataset.resume) // the last sequence that we know of
let fetching = false
let again = false
let timer = 0

function say(text, on) {
  sign.hidden = false
  sign.toggleAttribute('data-on', on)
  if (sign.lastElementChild.textContent !== text) sign.lastElementChild.textContent = text
}

function follow() {
  const from = new URL(body.dataset.follow, location)
  if (from.pathname === '/v1/events') from.searchParams.set('after', heard)
  source = new EventSource(from)
  source.onopen = () => say('live', true)
  source.onerror = () => {
    say('reconnecting', false)
    if (source && source.readyState === EventSource.CLOSED) {
      source = null
      setTimeout(() => { if (!source && !document.hidden) { follow(); refresh() } }, 5000)
    }
  }
  for (const type of types) {
    source.addEventListener(type, event => {
      const sequence = Number(JSON.parse(event.data).sequence)
      if (sequence < heard) return // an old one, told again from the beginning
      heard = sequence
      soon()
      if (type === 'completed' && from.pathname !== '/v1/events') finish()
    })
  }
}

function finish() { // the server ends the stream of one generation after its last event
  source?.close()
  source = null
  sign.hidden = true
  delete body.dataset.follow
}

function soon() {
  if (!timer) timer = setTimeout(() => { timer = 0; refresh() }, 120)
}

async function refresh() {
  if (fetching) { again = true; return }
  fetching = true
  try {
    const from = new URL(location)
    from.hash = ''
    from.searchParams.set('position', heard)
    const answer = await fetch(from, { headers: { Accept: 'text/html' } })
    if (answer.ok) update(new DOMParser().parseFromString(await answer.text(), 'text/html'))
  } catch { /* the stream says that the server is away */ } finally {
    fetching = false
    if (again) { again = false; soon() }
  }
}

function update(next) {
  for (const want of next.querySelectorAll('[data-part]')) {
    const have = document.getElementById(want.id)
    if (have) merge(have, want)
  }
  tick()
}

// merge makes have look like want. Children with an id are kept if nothing in
// them differs, and merged if something does.
function merge(have, want) {
  for (const { name, value } of want.attributes) if (have.getAttribute(name) !== value) have.setAttribute(name, value)
  if (!want.querySelector('[id]')) {
    if (have.innerHTML !== want.innerHTML) have.replaceChildren(...want.childNodes)
    return
  }
  const left = new Map([...have.children].map((child, i) => [keyOf(child, i), child]))
  const children = [...want.children].map((child, i) => {
    const old = left.get(keyOf(child, i))
    if (!old) {
      if (child.id) child.classList.add('fresh')
      return document.adoptNode(child)
    }
    const since = old.querySelector('[data-since]')
    if (since) since.textContent = child.querySelector('[data-since]')?.textContent ?? ''
    old.classList.remove('fresh')
    if (!old.isEqualNode(child)) merge(old, child)
    return old
  })
  // Moving a node starts its animations and videos anew: only if the order differs.
  if (children.length !== have.children.length || children.some((child, i) => child !== have.children[i])) have.replaceChildren(...children)
}

function keyOf(element, i) { return element.id || element.tagName + element.className + i }

// tick shows how long things in flight have been so.
function tick() {
  for (const time of document.querySelectorAll('[data-since]')) {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time.dateTime)) / 1000))
    time.textContent = seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
  }
}

// A hidden page holds no connection: browsers allow a few per host.
document.addEventListener('visibilitychange', () => {
  if (!body.dataset.follow) return
  if (document.hidden) { source?.close(); source = null } else if (!source) { follow(); refresh() }
})

setInterval(tick, 1000)
tick()
if (!document.hidden) follow()
