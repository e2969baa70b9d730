"use strict";
(() => {
  const data = JSON.parse(document.getElementById("audit-data").textContent);
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = n => n.toLocaleString("en-US");
  const charts = new Map();
  const MOST = 12, STACK = ["#2f7fb8", "#e69f00", "#cc6677", "#999933", "#aa4499", "#44aa99", "#888888", "#ddaa77"];
  Chart.defaults.animation = false;
  Chart.defaults.font.family = "system-ui, sans-serif";

  function theme() { Chart.defaults.color = css("--fg"); Chart.defaults.borderColor = css("--line"); }
  function top(pairs) {
    const rest = pairs.slice(MOST).reduce((sum, p) => sum + p[1], 0);
    return rest ? [...pairs.slice(0, MOST), [`${pairs.length - MOST} more`, rest]] : pairs.slice(0, MOST);
  }
  function config(id) {
    const spec = data.charts[id];
    const stacked = spec.kind !== "count" && spec.series.length > 1;
    let labels, sets;
    if (spec.kind === "count") {
      const pairs = top(spec.now || spec.pairs);
      labels = pairs.map(p => p[0]);
      sets = [{ label: "images", data: pairs.map(p => p[1]), backgroundColor: css("--bar") }];
    } else {
      labels = spec.labels;
      sets = spec.series.map((s, k) => ({ label: s.label, data: s.data, backgroundColor: STACK[k % STACK.length] }));
    }
    const across = spec.kind !== "histogram";
    return { labels, across, config: { type: "bar", data: { labels, datasets: sets }, options: {
      indexAxis: across ? "y" : "x", responsive: true, maintainAspectRatio: false,
      plugins: { legend: { display: stacked, position: "bottom" } },
      scales: { [across ? "x" : "y"]: { stacked, beginAtZero: true, ticks: { maxTicksLimit: 6 } },
                [across ? "y" : "x"]: { stacked, grid: { display: false }, ticks: { autoSkip: !across,
                  callback(v) { const t = String(this.getLabelForValue(v)); return t.length > 26 ? t.slice(0, 25) + "\u2026" : t; } } } } } } };
  }
  function draw(canvas) {
    const made = config(canvas.id);
    charts.get(canvas.id)?.destroy();
    canvas.parentElement.style.height = made.across ? `${Math.max(90, 60 + 24 * made.labels.length)}px` : "260px";
    charts.set(canvas.id, new Chart(canvas, made.config));
  }
  const canvases = [...document.querySelectorAll("canvas")];
  const seen = new IntersectionObserver(entries => entries.forEach(e => {
    if (e.isIntersecting) { seen.unobserve(e.target); draw(e.target); }
  }), { rootMargin: "300px" });
  function redraw() { theme(); canvases.filter(c => charts.has(c.id)).forEach(draw); }
  theme();
  canvases.forEach(c => seen.observe(c));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let opened = [];
  addEventListener("beforeprint", () => { theme(); canvases.forEach(draw); opened = [...document.querySelectorAll("details:not([open])")]; opened.forEach(d => { d.open = true; }); });
  addEventListener("afterprint", () => { opened.forEach(d => { d.open = false; }); redraw(); });

  const { columns, values, codes, images } = data.cells;
  const organ = document.getElementById("f-organ"), device = document.getElementById("f-device"), words = document.getElementById("f-words");
  const total = images.reduce((a, b) => a + b, 0);
  const texts = codes.map(row => row.map((c, k) => values[k][c]).join(" ").replaceAll("_", " ").toLowerCase());
  function fill(select, column) {
    const k = columns.indexOf(column);
    for (const value of k < 0 ? [] : values[k]) select.add(new Option(value, value));
  }
  fill(organ, "organ"); fill(device, "device_manufacturer");
  function kept() {
    const wanted = [[columns.indexOf("organ"), organ.value], [columns.indexOf("device_manufacturer"), device.value]].filter(w => w[1]);
    const search = words.value.toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
    return codes.map((row, i) => wanted.every(([k, v]) => values[k][row[k]] === v) && search.every(s => texts[i].includes(s)));
  }
  function apply() {
    const on = kept(), sums = columns.map((_, k) => new Array(values[k].length).fill(0));
    let count = 0;
    codes.forEach((row, i) => { if (on[i]) { count += images[i]; row.forEach((c, k) => { sums[k][c] += images[i]; }); } });
    const all = count === total;
    document.getElementById("f-count").textContent = all ? `all ${number(total)} images` : `${number(count)} of ${number(total)} images match`;
    columns.forEach((column, k) => {
      const spec = data.charts[`c-${column}`];
      if (!spec) return;
      spec.now = all ? null : values[k].map((v, i) => [v, sums[k][i]]).filter(p => p[1]).sort((a, b) => b[1] - a[1]);
      const now = new Map(spec.now || spec.pairs);
      document.querySelectorAll(`#t-${column} tbody tr`).forEach(tr => {
        const n = now.get(tr.dataset.value) || 0;
        tr.hidden = n === 0; tr.cells[1].textContent = number(n);
        tr.querySelectorAll(".whole").forEach(td => { td.textContent = all ? td.dataset.n : "\u2013"; });
      });
      const canvas = document.getElementById(`c-${column}`);
      if (charts.has(canvas.id)) draw(canvas);
    });
    const search = words.value.toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
    let shown = 0;
    document.querySelectorAll("[data-organ]").forEach(f => {
      const fits = (!organ.value || f.dataset.organ === organ.value) && (!device.value || f.dataset.device === device.value) && search.every(s => f.dataset.text.includes(s));
      f.hidden = !fits; shown += fits;
    });
    document.getElementById("p-count").textContent = `${shown} pictures shown`;
  }
  let wait;
  [organ, device].forEach(s => s.addEventListener("change", apply));
  words.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(apply, 150); });
  document.getElementById("f-clear").addEventListener("click", () => { organ.value = device.value = words.value = ""; apply(); });
  apply();
})();
