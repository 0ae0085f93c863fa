// The lists of calls: what waits, what is unknown, what is queued.

import { List, make, put, show } from './dom.js';
import { plural, span, stamp } from './words.js';

// A row has a button for each of acts: { word, name, ask }, where name is what
// a screen reader says of it.
function create(acts, on) {
	return (item) => {
		const row = make('t-row');
		row.item = item;
		show(row.fields.buttons, acts.length > 0);
		for (const act of acts) {
			const button = document.createElement('button');
			button.type = 'button';
			button.className = 'act';
			button.dataset.act = act.action;
			button.textContent = act.word;
			button.addEventListener('click', () => {
				if (button.getAttribute('aria-disabled') !== 'true') on(act, row);
			});
			row.fields.buttons.append(button);
		}
		return row;
	};
}

function shared(row, item) {
	row.item = item;
	const f = row.fields;
	put(f.method, item.method);
	put(f.path, item.path);
	const call = (item.method + ' ' + item.path).trim();
	if (f.path.title !== call) f.path.title = call;
	for (const button of f.buttons.children) {
		const label = button.textContent + ' ' + call + ', ' + item.caller;
		if (button.getAttribute('aria-label') !== label) button.setAttribute('aria-label', label);
	}
}

function enable(row, enabled) {
	for (const button of row.fields.buttons.children) button.setAttribute('aria-disabled', String(!enabled));
}

function goes(expected, now) {
	if (expected == null) return '';
	return expected - now < 50 ? 'goes now' : 'goes in ' + span(expected - now);
}

export function waitingRows(root, now) {
	const list = new List(root, {
		create: create([]),
		update(row, item) {
			shared(row, item);
			const f = row.fields;
			put(f.who, item.caller + ' · u=' + item.priority);
			put(f.when, item.since == null ? '' : 'waited ' + span(now() - item.since));
			put(f.goes, goes(item.expected, now()));
			put(f.reason, item.why);
		},
		gone: (row) => put(row.fields.goes, 'has gone'),
	});
	return (items) => list.render(items.map((w) => [w.id || w.caller + ' ' + w.method + ' ' + w.path + ' ' + w.since, w]));
}

export function executionRows(root, now, { acts, on, when, gone }) {
	const list = new List(root, {
		create: create(acts, on),
		update(row, item) {
			shared(row, item);
			enable(row, !row.asked);
			const f = row.fields;
			put(f.who, item.caller + (item.attempts > 1 ? ' · ' + plural(item.attempts, 'attempt', 'attempts') : ''));
			put(f.when, item.at == null ? '' : when + ' ' + stamp(item.at, now()));
			put(f.goes, row.asked ? '' : goes(item.expected, now()));
			put(f.reason, item.reason);
		},
		gone(row) {
			enable(row, false);
			put(row.fields.goes, gone);
		},
	});
	return (items) => list.render(items.map((x) => [x.id, x]));
}

// done marks a row as asked for, and moves the focus on to the next one: its
// own will be gone in a moment.
export function done(row, heading) {
	row.asked = true;
	enable(row, false);
	let next = row.element.nextElementSibling;
	while (next && (next.classList.contains('gone') || !next.querySelector('button'))) next = next.nextElementSibling;
	(next?.querySelector('button') ?? heading).focus();
}
