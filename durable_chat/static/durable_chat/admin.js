// The admin's list of runs renews itself while somebody looks at it and nobody works in it.

const PERIOD = 2000

/** The page as it is now. By XMLHttpRequest: a policy with trusted types lets no script parse HTML. */
const fetched = () =>
  new Promise((resolve) => {
    const request = new XMLHttpRequest()
    request.open("GET", location.href)
    request.responseType = "document"
    request.onloadend = () => resolve(request.response)
    request.send()
  })

const rows = (page) => [...(page?.querySelectorAll("#result_list tbody tr") ?? [])]
const name = (row) => row.querySelector("th a")?.getAttribute("href")
const cells = (row) => [...row.children].filter((cell) => !cell.matches(".action-checkbox"))

/** Cell by cell: the boxes stay the ones that the admin's own script knows. */
function renew(row, fresh) {
  const now = cells(fresh)
  cells(row).forEach((cell, place) => {
    if (cell.textContent !== now[place].textContent) cell.replaceChildren(...now[place].childNodes)
  })
}

const busy = () => document.hidden || document.querySelector("#changelist-form :is(input:checked, :focus)")

async function look() {
  if (busy()) return
  const page = await fetched()
  if (busy()) return
  const known = new Map(rows(document).map((row) => [name(row), row]))
  for (const fresh of rows(page).reverse()) {
    const row = known.get(name(fresh))
    if (row) renew(row, fresh)
    else document.querySelector("#result_list tbody").prepend(fresh)
  }
}

async function go() {
  await look()
  setTimeout(go, PERIOD)
}

if (document.querySelector("#result_list")) setTimeout(go, PERIOD)
