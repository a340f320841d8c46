/* Draws the page's charts and binds its controls to them. What was set (axis, zoom, switches, open
   details, place on the page) is kept in the history's entry, so that a reload brings it back. */
"use strict";
(() => {
  const { document: json, roots, extents, labels } = JSON.parse(document.getElementById("charts").textContent);
  const page = document.documentElement;
  const all = (query, within = document) => [...within.querySelectorAll(query)];
  const one = (query, within = document) => within.querySelector(query);
  const kept = history.state || {};
  const charts = new Map(); // place → {plot, element, shared}
  let cursor = null, touched = 0, over = false;

  const has = (model, tag) => model.tags.includes(tag);
  const number = (model, name) => Number((model.tags.find((tag) => tag.startsWith(`${name}-`)) || "-0").split("-").pop());
  const axis = () => one("#axis").value;
  const shared = () => [...charts.values()].filter((chart) => chart.shared);
  const column = (renderer, name) => renderer.data_source.get_array(name);
  const fieldOf = (renderer) => renderer.glyph.properties.y.get_value().field;

  function keep() {
    const ranges = shared().map(({ plot }) => [plot.x_range.start, plot.x_range.end]);
    history.replaceState({
      axis: axis(), window: ranges[0], extent: extents[axis()], theme: one("#theme").value, drag: one("#drag").value, smooth: one("#smooth").value,
      follow: one("#follow") ? one("#follow").checked : true,
      off: all("input[data-kind]").map((input, place) => (input.checked ? -1 : place)).filter((place) => place >= 0),
      runs: all("input[data-run]").map((input) => input.checked),
      logs: all("input[data-log]").map((input) => input.checked),
      open: all("details[open]").map((details) => details.dataset.keep),
      scroll: window.scrollY,
    }, "");
  }

  /* Colours are those of the page's style sheet. */
  function paint() {
    const style = getComputedStyle(page);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    for (const { plot } of charts.values()) {
      for (const part of [...plot.left, ...plot.below, ...plot.above, ...plot.center]) {
        const set = {};
        const names = {
          major_label_text_color: "soft", axis_label_text_color: "soft", axis_line_color: "soft",
          major_tick_line_color: "soft", grid_line_color: "line",
        };
        for (const [name, value] of Object.entries(names)) if (name in part.properties) set[name] = colour(value);
        if (has(part, "cursor")) set.line_color = colour("soft");
        part.setv(set);
      }
      for (const renderer of plot.renderers) {
        const tag = renderer.tags.find((name) => name.startsWith("colour-"));
        if (!tag) continue;
        const own = colour(tag === "colour-soft" ? "soft" : `c${tag.slice(7)}`);
        const set = {};
        if (["line", "ring", "marks"].some((name) => has(renderer, name))) set.line_color = { value: own };
        if (["band", "marks", "area"].some((name) => has(renderer, name))) set.fill_color = { value: own };
        if (has(renderer, "band")) set.fill_color = own;
        if (has(renderer, "ring")) set.fill_color = { value: colour("card") };
        renderer.glyph.setv(set);
      }
    }
  }

  function look() {
    if (one("#theme").value) page.dataset.theme = one("#theme").value;
    else delete page.dataset.theme;
    paint();
  }

  function show(start, end) {
    const [low, high] = extents[axis()];
    const width = Math.min(Math.max(end - start, (high - low) * 1e-5), (high - low) * 1.1);
    const from = Math.min(Math.max(start, low - (high - low) * 0.05), high + (high - low) * 0.05 - width);
    const first = shared()[0];
    if (first) first.plot.x_range.setv({ start: from, end: from + width });
  }

  function against() {
    for (const { plot } of shared()) {
      for (const { glyph } of plot.renderers) {
        if ("x" in glyph.properties) glyph.x = { field: axis() };
        if ("left" in glyph.properties) glyph.setv({ left: { field: `left_${axis()}` }, right: { field: `right_${axis()}` } });
      }
      plot.below[0].axis_label = labels[axis()];
    }
    show(...extents[axis()]);
    point(null);
  }

  function zoom(act) {
    const first = shared()[0];
    if (!first) return;
    const { start, end } = first.plot.x_range;
    const width = end - start, middle = (start + end) / 2;
    if (act === "whole") show(...extents[axis()]);
    if (act === "in") show(middle - width / 3, middle + width / 3);
    if (act === "out") show(middle - width * 0.75, middle + width * 0.75);
    if (act === "left") show(start - width / 4, end - width / 4);
    if (act === "right") show(start + width / 4, end + width / 4);
  }

  function zoomOwn({ plot, home }, act) {
    for (const [name, [start, end]] of Object.entries(home)) {
      const range = plot[name], middle = (range.start + range.end) / 2, half = (range.end - range.start) / 2;
      const by = act === "in" ? 2 / 3 : 1.5;
      range.setv(act === "whole" ? { start, end } : { start: middle - half * by, end: middle + half * by });
    }
  }

  function switched() {
    const runs = all("input[data-run]").map((input) => input.checked);
    for (const { plot, element } of charts.values()) {
      const kinds = new Map(all("input[data-kind]", element).map((input) => [Number(input.dataset.kind), input.checked]));
      for (const renderer of plot.renderers) {
        if (!kinds.size && !renderer.tags.some((tag) => tag.startsWith("run-"))) continue;
        const kind = kinds.get(number(renderer, "kind")), run = runs[number(renderer, "run")];
        renderer.visible = kind !== false && run !== false;
      }
    }
  }

  function scales() {
    for (const { plot, element } of charts.values()) {
      const input = one("input[data-log]", element);
      if (!input) continue;
      const name = input.checked ? "Log" : "Linear";
      if (plot.y_scale.type === `${name}Scale`) continue;
      const made = (type) => new (Bokeh.Models.get(type))();
      plot.y_scale = made(`${name}Scale`);
      const ticker = made(input.checked ? "LogTicker" : "BasicTicker");
      plot.left[0].setv({ ticker, formatter: made(input.checked ? "LogTickFormatter" : "BasicTickFormatter"), minor_tick_line_color: null });
      for (const grid of plot.center) if (grid.dimension === 1) grid.ticker = ticker;
    }
  }

  function drags() {
    const wanted = { zoom: "BoxZoomTool", pan: "PanTool" }[one("#drag").value];
    for (const { plot } of charts.values()) {
      plot.toolbar.active_drag = plot.toolbar.tools.find((tool) => tool.type === wanted) || null;
    }
  }

  /* An average over the past, with more weight on what is near; without the pull towards 0 of its start. */
  function smoothed(values, weight) {
    let sum = 0, known = 0;
    return Float32Array.from(values, (value) => {
      if (!Number.isFinite(value)) return NaN;
      sum = sum * weight + (1 - weight) * value;
      known = known * weight + (1 - weight);
      return sum / known;
    });
  }

  function smooth() {
    const weight = Number(one("#smooth").value);
    for (const { plot } of shared()) {
      for (const renderer of plot.renderers.filter((each) => has(each, "noisy"))) {
        const field = fieldOf(renderer).replace(/^smooth-/, ""), source = renderer.data_source;
        const values = column(renderer, field);
        if (weight > 0 && values.length > 10) {
          const data = {};
          for (const name of source.columns()) data[name] = source.get_array(name);
          source.data = { ...data, [`smooth-${field}`]: smoothed(values, weight) };
          renderer.glyph.y = { field: `smooth-${field}` };
        } else renderer.glyph.y = { field };
      }
    }
  }

  function nearest(values, x) {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] <= x) low = middle;
      else high = middle;
    }
    return Math.abs(values[high] - x) < Math.abs(values[low] - x) ? high : low;
  }

  const text = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "–");

  /* The values of all curves at x beside their names; without x those of the end, as the page has them. */
  function point(x) {
    cursor = x;
    const told = [];
    for (const { plot, element } of shared()) {
      for (const span of plot.center.filter((part) => has(part, "cursor"))) {
        span.setv(x === null ? { visible: false } : { location: x, visible: true });
      }
      const head = one(".at", element);
      if (head) head.textContent = x === null ? "at the end" : `at ${text(x)} ${labels[axis()]}`;
      for (const cell of all("[data-value]", element)) {
        if (cell.dataset.end === undefined) cell.dataset.end = cell.textContent;
        if (x === null) cell.textContent = cell.dataset.end;
      }
      if (x === null) continue;
      for (const renderer of plot.renderers) {
        const cell = one(`[data-value="${number(renderer, "kind")}.${number(renderer, "run")}"]`, element);
        if (!cell) continue;
        let value;
        if (renderer.glyph.type === "Line") {
          const places = column(renderer, axis());
          value = column(renderer, fieldOf(renderer))[nearest(places, x)];
        } else if (renderer.glyph.type === "Quad") {
          const lefts = column(renderer, `left_${axis()}`), rights = column(renderer, `right_${axis()}`);
          value = column(renderer, renderer.name)[lefts.findIndex((left, place) => left <= x && x < rights[place])];
        } else continue;
        cell.textContent = cell.dataset.end.endsWith("%") ? `${text(value * 100)}%` : text(value);
        if (renderer.visible && element.contains(document.activeElement)) told.push(`${renderer.name} ${cell.textContent}`);
      }
    }
    if (told.length) one("#told").textContent = `${labels[axis()]} ${text(x)}: ${told.join(", ")}`;
  }

  function keyed(chart, event) {
    const act = { "+": "in", "=": "in", "-": "out", 0: "whole" }[event.key];
    if (act) {
      if (chart.shared) zoom(act);
      else if (Object.keys(chart.home).length) zoomOwn(chart, act);
      else return;
    } else if (chart.shared && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const left = event.key === "ArrowLeft";
      if (event.shiftKey) zoom(left ? "left" : "right");
      else {
        const { start, end } = chart.plot.x_range;
        const x = cursor === null ? (left ? end : start) : cursor + ((left ? -1 : 1) * (end - start)) / 100;
        point(Math.min(Math.max(x, start), end));
      }
    } else if (event.key === "Escape") point(null);
    else return;
    event.preventDefault();
    keep();
  }

  function restore() {
    for (const name of ["axis", "theme", "drag", "smooth"]) if (kept[name] !== undefined) one(`#${name}`).value = kept[name];
    if (kept.drag === undefined && matchMedia("(pointer: coarse)").matches) one("#drag").value = "none"; // fingers scroll the page
    all("input[data-kind]").forEach((input, place) => { input.checked = !(kept.off || []).includes(place); });
    all("input[data-run]").forEach((input, place) => { input.checked = (kept.runs || [])[place] !== false; });
    all("input[data-log]").forEach((input, place) => { if (kept.logs && place in kept.logs) input.checked = kept.logs[place]; });
    for (const details of all("details")) if ((kept.open || []).includes(details.dataset.keep)) details.open = true;
    if (one("#follow") && kept.follow !== undefined) one("#follow").checked = kept.follow;
  }

  /* The run goes on: what is seen of its end stays in sight, what is zoomed into stays as it is. */
  function rewind() {
    against();
    const before = kept.window, whole = kept.extent;
    if (before && whole && !(before[0] <= whole[0] && before[1] >= whole[1])) show(...before);
    if (kept.scroll) window.scrollTo(0, kept.scroll);
  }

  function bind() {
    one("#axis").addEventListener("change", against);
    one("#theme").addEventListener("change", look);
    one("#drag").addEventListener("change", drags);
    one("#smooth").addEventListener("input", smooth);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    for (const button of all("[data-zoom]")) button.addEventListener("click", () => zoom(button.dataset.zoom));
    for (const input of all("input[data-kind], input[data-run]")) input.addEventListener("change", switched);
    for (const input of all("input[data-log]")) input.addEventListener("change", scales);
    for (const chart of charts.values()) {
      for (const button of all("[data-own]", chart.element)) button.addEventListener("click", () => zoomOwn(chart, button.dataset.own));
      chart.canvas.addEventListener("keydown", (event) => keyed(chart, event));
      if (!chart.shared) continue;
      chart.plot.on_event("mousemove", (event) => { if (!over) { over = true; requestAnimationFrame(() => { over = false; point(event.x); }); } });
      chart.plot.on_event("mouseleave", () => requestAnimationFrame(() => point(null)));
      chart.plot.on_event("doubletap", () => zoom("whole"));
    }
    for (const name of ["change", "click", "toggle", "pointerup"]) document.addEventListener(name, () => setTimeout(keep), true);
    addEventListener("scrollend", keep);
  }

  function follow(seconds) {
    history.scrollRestoration = "manual";
    for (const name of ["pointermove", "pointerdown", "keydown", "wheel", "scroll"]) addEventListener(name, () => { touched = Date.now(); }, { passive: true });
    setInterval(() => {
      if (!one("#follow").checked || document.hidden || Date.now() - touched < 2000) return;
      keep();
      location.reload();
    }, seconds * 1000);
  }

  Bokeh.logger.set_level("error");
  Bokeh.embed.embed_items({ page: json }, [{ docid: "page", roots, root_ids: Object.keys(roots) }]).then(() => {
    const document_ = Bokeh.documents[Bokeh.documents.length - 1];
    for (const plot of document_.roots()) {
      const canvas = document.getElementById(plot.name);
      const home = {};
      for (const name of ["x_range", "y_range"]) {
        if (plot[name].type === "Range1d" && !has(plot, "shared")) home[name] = [plot[name].start, plot[name].end];
      }
      // Its own place in the order of Tab would be a second one, that shows nothing.
      for (const figure of all(".bk-Figure", canvas)) figure.tabIndex = -1;
      charts.set(plot.name, { plot, canvas, element: canvas.closest("[data-chart]"), shared: has(plot, "shared"), home });
    }
    restore();
    look();
    switched();
    scales();
    drags();
    smooth();
    rewind();
    bind();
    if (document.body.dataset.live) follow(Number(document.body.dataset.live));
    page.dataset.drawn = "yes";
  });
})();
