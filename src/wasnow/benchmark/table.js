// Sorts the table by the column that is asked for; empty cells stay last. The order is kept in the address.
"use strict";
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.querySelectorAll("th[data-key]")];

  function sort(key, ascending) {
    const head = heads.find((one) => one.dataset.key === key);
    if (!head) return;
    const column = Number(head.dataset.column);
    const text = (row) => row.cells[column].dataset.value;
    const sign = ascending ? 1 : -1;
    const compare = (one, other) => {
      const a = text(one), b = text(other);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (head.dataset.kind === "text" ? a.localeCompare(b) : Number(a) - Number(b));
    };
    body.append(...[...rows].sort(compare));
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }

  function follow() {
    const address = decodeURIComponent(location.hash.slice(1));
    sort(address.replace(/^[+-]/, ""), address.startsWith("+"));
  }

  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const ascending = now === null ? head.dataset.first === "ascending" : now === "descending";
      history.replaceState(null, "", "#" + (ascending ? "+" : "-") + encodeURIComponent(head.dataset.key));
      sort(head.dataset.key, ascending);
    });
  }
  addEventListener("hashchange", follow);
  follow();
})();
