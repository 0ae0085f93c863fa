// Helpers that change the page in place. All text goes in as text.

export const $ = (id) => document.getElementById(id);

// put sets an element's text if it is another one: a text that is set again
// loses its selection, and a live region would say it again.
export function put(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

export function show(element, shown) {
	if (element.hidden === shown) element.hidden = !shown;
}

// make copies a template's element and finds its fields.
export function make(id) {
	const element = $(id).content.firstElementChild.cloneNode(true);
	const fields = {};
	for (const f of element.querySelectorAll('[data-f]')) fields[f.dataset.f] = f;
	return { element, fields };
}

// List keeps the children of an element in step with data. A child stays the
// same element as long as its key is there, so focus and selection stay too.
//
// Nothing moves under the reader: the child that has the focus or the pointer,
// and those above it, stay where they are. What has gone among them is marked
// as gone, and what is new comes below.
export class List {
	constructor(root, { create, update, gone = null }) {
		Object.assign(this, { root, create, update, gone });
		this.rows = new Map();
	}

	render(items) {
		const keyed = new Map();
		for (const [key, item] of items) {
			let unique = key;
			for (let n = 2; keyed.has(unique); n++) unique = key + '#' + n;
			keyed.set(unique, item);
		}
		const order = this.kept();
		for (const key of order) {
			const row = this.rows.get(key);
			this.mark(row, !keyed.has(key));
		}
		const fixed = new Set(order);
		for (const key of keyed.keys()) if (!fixed.has(key)) order.push(key);

		for (const [key, row] of this.rows) {
			if (!keyed.has(key) && !fixed.has(key)) {
				row.element.remove();
				row.end?.();
				this.rows.delete(key);
			}
		}
		let at = this.root.firstElementChild;
		for (const key of order) {
			let row = this.rows.get(key);
			if (!row) {
				row = this.create(keyed.get(key), key);
				this.rows.set(key, row);
			}
			if (keyed.has(key)) this.update(row, keyed.get(key));
			if (row.element === at) at = at.nextElementSibling;
			else this.root.insertBefore(row.element, at);
		}
	}

	// kept are the keys, in their order, down to the child that must not move.
	kept() {
		if (!this.gone) return [];
		const children = [...this.root.children];
		const last = Math.max(
			children.findIndex((c) => c.contains(document.activeElement)),
			children.findIndex((c) => c.matches(':hover')),
		);
		const keys = new Map([...this.rows].map(([key, row]) => [row.element, key]));
		return children.slice(0, last + 1).map((c) => keys.get(c));
	}

	mark(row, gone) {
		if (row.element.classList.toggle('gone', gone) && gone) this.gone(row);
	}

	clear() {
		for (const row of this.rows.values()) {
			row.element.remove();
			row.end?.();
		}
		this.rows.clear();
	}
}
