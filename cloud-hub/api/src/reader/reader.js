// Shows /v1/openapi.json: operations by subject, what they take and answer, the permission they need, a call to copy.
// All text goes in as text nodes, so that nothing in the document becomes markup. No library, no other request.
"use strict";

const DOCUMENT = "/v1/openapi.json";
const METHODS = ["get", "post", "put", "patch", "delete"];
// Schemas may refer to themselves; this deep nobody reads on.
const DEEPEST = 6;

/** An element with attributes and children; strings become text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The little Markdown that descriptions use: paragraphs, `code`, **bold**. */
function prose(text) {
  return (text ?? "").split(/\n\n+/).filter(Boolean).map((paragraph) => element("p", {}, ...inline(paragraph)));
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (part.startsWith("`") && part.length > 1) return element("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 3) return element("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** What a `$ref` refers to; the value itself if it is none. */
function resolve(api, value) {
  if (!value?.$ref) return value;
  const steps = value.$ref.replace(/^#\//, "").split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
  const found = steps.reduce((at, step) => at?.[step], api);
  return { name: steps.at(-1), ...found, ...(value.description ? { description: value.description } : {}) };
}

/** The kind of a value in a few words: type, bounds, words. */
function kindOf(api, schema) {
  const whole = resolve(api, schema) ?? {};
  const choices = whole.oneOf ?? whole.anyOf;
  if (choices) return choices.map((choice) => kindOf(api, choice)).join(" or ");
  const words = whole.const !== undefined ? [whole.const] : whole.enum;
  if (words) return words.map((word) => JSON.stringify(word)).join(" | ");
  const types = [].concat(whole.type ?? (whole.properties || whole.allOf ? "object" : "any"));
  const named = types.map((type) => (type === "array" ? `array of ${whole.items ? kindOf(api, whole.items) : "any"}` : type));
  const bounds = [
    whole.format,
    span(whole.minimum, whole.maximum, ""),
    span(whole.minLength, whole.maxLength, " characters"),
    span(whole.minItems, whole.maxItems, " entries"),
    whole.default === undefined ? "" : `default ${JSON.stringify(whole.default)}`,
  ].filter(Boolean);
  const kind = named.join(" or ") + (bounds.length ? ` (${bounds.join(", ")})` : "");
  return types.includes("object") ? (whole.name ?? whole.title ?? kind) : kind;
}

function span(least, most, unit) {
  if (least === undefined && most === undefined) return "";
  if (most === undefined) return `from ${least}${unit}`;
  return least === undefined ? `up to ${most}${unit}` : `${least} to ${most}${unit}`;
}

/** The members of an object, nested; nothing for what has none. */
function members(api, schema, depth = 0) {
  const whole = resolve(api, schema) ?? {};
  if (depth > DEEPEST) return null;
  if (whole.items) return members(api, whole.items, depth + 1);
  const parts = whole.oneOf ?? whole.anyOf ?? whole.allOf;
  if (parts) {
    const lists = parts.map((part) => [resolve(api, part), members(api, part, depth + 1)]).filter(([, list]) => list);
    if (!lists.length) return null;
    const titled = ([part, list]) => (part.title ? [element("p", { class: "faint" }, part.title), list] : [list]);
    return element("div", {}, ...lists.flatMap(titled));
  }
  const named = Object.entries(whole.properties ?? {});
  if (whole.additionalProperties?.$ref || whole.additionalProperties?.type) named.push(["(any name)", whole.additionalProperties]);
  if (!named.length) return null;
  const required = new Set(whole.required ?? []);
  const entry = ([name, value]) => {
    const said = resolve(api, value)?.description;
    return element(
      "li", {},
      element("code", {}, name), ` ${kindOf(api, value)}${required.has(name) ? "" : ", optional"}`,
      ...(said ? [element("span", { class: "faint" }, " — ", ...inline(said))] : []),
      members(api, value, depth + 1),
    );
  };
  return element("ul", { class: "members" }, ...named.map(entry));
}

/** A value that a schema takes, to start from. */
function sample(api, schema, depth = 0) {
  const whole = resolve(api, schema) ?? {};
  const given = whole.example ?? whole.examples?.[0] ?? whole.default ?? whole.const ?? whole.enum?.[0];
  if (given !== undefined) return given;
  const first = (whole.oneOf ?? whole.anyOf)?.[0];
  if (first) return sample(api, first, depth);
  const type = [].concat(whole.type ?? "object")[0];
  if (type === "array") return depth > DEEPEST || !whole.items ? [] : [sample(api, whole.items, depth + 1)];
  if (type === "integer" || type === "number") return whole.minimum ?? 0;
  if (type === "boolean") return true;
  if (type === "string") return whole.format === "uuid" ? "0192f0c1-0000-7000-8000-000000000000" : "…";
  const required = new Set(whole.required ?? []);
  const wanted = Object.entries(whole.properties ?? {}).filter(([name]) => required.has(name));
  return Object.fromEntries(wanted.map(([name, value]) => [name, sample(api, value, depth + 1)]));
}

/** A text as one word of a shell. */
function word(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The call as a command line. The hub's own authority is usually not one that the machine believes. */
function command(api, method, path, operation) {
  const scheme = Object.keys(operation.security?.[0] ?? {})[0];
  const lines = [`curl --cacert root.pem${method === "get" ? "" : ` -X ${method.toUpperCase()}`} ${word(location.origin + path)}`];
  if (scheme === "ApiKey") lines.push(`-H "Authorization: ApiKey $LINTEL_KEY"`);
  if (scheme === "Device") lines.push("--cert device.pem --key device-key.pem");
  const headers = (operation.parameters ?? []).filter((parameter) => parameter.in === "header" && parameter.required);
  lines.push(...headers.map((header) => `-H ${word(`${header.name}: …`)}`));
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (type === "multipart/form-data") lines.push("-F photo=@photograph.jpg");
  else if (type === "application/json") lines.push(`-H ${word(`Content-Type: ${type}`)}`, `-d ${word(JSON.stringify(sample(api, content.schema)))}`);
  else if (type) lines.push(`-H ${word(`Content-Type: ${type}`)}`, "--data-binary @file");
  return lines.join(" \\\n  ");
}

function table(caption, heads, rows) {
  if (!rows.length) return null;
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  return element("div", {}, element("h3", {}, caption), element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function row(...cells) {
  return element("tr", {}, ...cells.map((cell) => element("td", {}, ...[].concat(cell))));
}

function body(api, title, content) {
  return Object.entries(content ?? {}).flatMap(([type, { schema }]) => [
    element("h3", {}, title),
    element("p", {}, element("code", {}, type), schema ? ` ${kindOf(api, schema)}` : ""),
    schema ? members(api, schema) : null,
  ]);
}

function answerRow(api, [status, given]) {
  const answer = resolve(api, given);
  const schema = Object.values(answer.content ?? {})[0]?.schema;
  const headers = Object.keys(answer.headers ?? {});
  return row(
    element("code", {}, status),
    [
      ...inline(answer.description ?? ""),
      ...(headers.length ? [element("p", { class: "faint" }, `Headers: ${headers.join(", ")}`)] : []),
      // A problem is explained once, above.
      ...(schema && Number(status) < 400 ? [element("p", {}, kindOf(api, schema)), members(api, schema) ?? ""] : []),
    ],
  );
}

function show(api, method, path, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) =>
    row(element("code", {}, parameter.name), parameter.in, kindOf(api, parameter.schema), parameter.required ? "required" : "optional", inline(parameter.description ?? "")));
  const answers = Object.entries(operation.responses ?? {}).map((entry) => answerRow(api, entry));
  const needs = operation["x-lintel-permission"];
  return element(
    "details", { class: "operation", id: operation.operationId },
    element("summary", {}, element("span", { class: `method ${method}` }, method.toUpperCase()), " ", element("code", {}, path), ` ${operation.summary ?? ""} `, needs ? element("span", { class: "faint" }, needs) : null),
    element(
      "div", {},
      ...prose(operation.description),
      table("Parameters", ["Name", "Where", "Kind", "", "Meaning"], parameters),
      ...body(api, "Body", operation.requestBody?.content),
      element("h3", {}, "Call"),
      element("pre", { tabindex: "0" }, command(api, method, path, operation)),
      table("Answers", ["Status", "Meaning"], answers),
    ),
  );
}

/** Hides what does not have every word that is looked for. */
function search(operations, sections, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const { shown, text } of operations) {
    const fits = words.every((part) => text.includes(part));
    shown.hidden = !fits;
    found += fits ? 1 : 0;
  }
  for (const section of sections) section.hidden = !section.querySelector("details:not([hidden])");
  document.getElementById("found").textContent = words.length ? `${found} of ${operations.length} operations` : `${operations.length} operations`;
}

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named?.tagName === "DETAILS") {
    named.open = true;
    named.scrollIntoView();
  }
}

function page(api) {
  document.title = document.getElementById("title").textContent = `API: ${api.info.title}`;
  document.getElementById("version").textContent = `Version ${api.info.version}.`;
  document.getElementById("about").append(element("details", {}, element("summary", {}, "Conventions"), ...prose(api.info.description)));
  const all = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ method, path, operation: item[method] })));
  const operations = [];
  const sections = api.tags.map((tag, index) => {
    const shown = all.filter(({ operation }) => operation.tags?.includes(tag.name)).map(({ method, path, operation }) => {
      const made = show(api, method, path, operation);
      const about = [method, path, operation.operationId, operation.summary, operation.description, operation["x-lintel-permission"], tag.name];
      operations.push({ shown: made, text: about.join(" ").toLowerCase() });
      return made;
    });
    return element("section", { id: `subject-${index}`, "aria-labelledby": `subject-${index}-name` },
      element("h2", { id: `subject-${index}-name` }, tag.name), element("p", {}, ...inline(tag.description ?? "")), ...shown);
  });
  document.getElementById("state").remove();
  document.getElementById("operations").append(...sections);
  document.getElementById("subjects").append(element("ul", {}, ...api.tags.map((tag, index) =>
    element("li", {}, element("a", { href: `#subject-${index}` }, tag.name)))));
  const query = document.getElementById("query");
  query.addEventListener("input", () => search(operations, sections, query.value));
  search(operations, sections, query.value);
  window.addEventListener("hashchange", openNamed);
  openNamed();
}

fetch(DOCUMENT)
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`the hub answered ${answer.status}`))))
  .then(page)
  .catch((error) => {
    const state = document.getElementById("state");
    if (state) state.textContent = `The document cannot be shown: ${error.message}.`;
    else throw error;
  });
