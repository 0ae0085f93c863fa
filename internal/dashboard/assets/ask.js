// Asking before what can't be taken back, and telling what came of it.

import { $, put, show } from './dom.js';

// ask shows what an action means and resolves to whether to do it. Escape and
// the first button leave things as they are.
export function ask({ title, what, text, yes }) {
	const dialog = $('ask');
	put($('ask-title'), title);
	put($('ask-what'), what);
	put($('ask-text'), text);
	put($('ask-yes'), yes);
	dialog.returnValue = 'no';
	dialog.showModal();
	$('ask-no').focus();
	return new Promise((resolve) => {
		dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
	});
}

// send posts a change; it throws an Error with the gateway's words.
export async function send(what, body) {
	let answer;
	try {
		answer = await fetch(what, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), redirect: 'error' });
	} catch {
		throw new Error('the gateway does not answer; nothing may have been changed');
	}
	if (answer.ok) return;
	const problem = await answer.json().catch(() => ({}));
	throw new Error(problem.detail || problem.title || 'the gateway answered ' + answer.status);
}

// say tells those who do not see the page.
export function say(text) {
	put($('said'), text);
}

let hiding;

// fail shows what went wrong, for as long as it takes to read.
export function fail(text) {
	const toast = $('toast');
	put(toast, text);
	show(toast, true);
	clearTimeout(hiding);
	hiding = setTimeout(() => show(toast, false), 12000);
}
