// The page: what is open, and what it shows of each view.

import { $, List, make, put, show } from './dom.js';
import { ask, fail, say, send } from './ask.js';
import { Columns, Plot } from './plot.js';
import { done, executionRows, waitingRows } from './rows.js';
import { Stream } from './stream.js';
import { clock, count, headline, held, learns, needsLook, percent, plural, rate, span, state, told } from './words.js';

const page = {
	org: null, // the name of the one that is open; '' for none, null before the first view
	overview: null,
	view: null, // the open org's
	columns: new Map(), // by limit
	headline: '',
};
const now = () => page.overview?.at ?? 0;

// ---- which org is open: it stands in the address, as #/name

function named() {
	if (location.hash === '') return '';
	if (!location.hash.startsWith('#/')) return page.org ?? ''; // a jump within the page
	try {
		return decodeURIComponent(location.hash.slice(2));
	} catch {
		return '';
	}
}

const address = (org) => '#/' + encodeURIComponent(org);

function open(org) {
	if (org === page.org) return;
	const before = page.org;
	page.org = org;
	page.view = null;
	page.headline = '';
	page.columns.clear();
	limits.clear();
	for (const id of ['waiting', 'unknown', 'queued']) $(id).style.minHeight = '';
	for (const rows of [waiting, unknown, queued]) rows([]);
	show($('org'), false);
	show($('empty'), org !== '');
	put($('empty'), 'Connecting…');
	document.body.dataset.view = org === '' ? 'all' : 'org';
	document.title = org ? org + ' · headgate' : 'headgate';
	if (before !== null) window.scrollTo(0, 0);
	stream.open(org);
}

window.addEventListener('hashchange', () => open(named()));

// ---- the list of orgs

const orgs = new List($('org-list'), {
	create: () => {
		const row = make('t-org');
		row.link = row.element.querySelector('a');
		return row;
	},
	update(row, o) {
		const s = state(o);
		row.element.dataset.state = s.kind;
		if (row.name !== o.name) {
			row.name = o.name;
			row.link.href = address(o.name);
			put(row.fields.name, o.name);
			row.link.title = o.name;
		}
		if (o.name === page.org) row.link.setAttribute('aria-current', 'page');
		else row.link.removeAttribute('aria-current');
		put(row.fields.line, s.word);
		put(row.fields.rate, rate(o.rate) + '/s');
		put(row.fields.held, o.held ? count(o.held) + ' held' : '');
		put(row.fields.queued, o.queued ? count(o.queued) + ' queued' : '');
		show(row.fields.flag, o.unknown > 0);
		put(row.fields.flag, count(o.unknown) + ' unknown');
	},
});

function renderOrgs() {
	const all = page.overview.orgs;
	const wanted = $('find').value.trim().toLowerCase();
	const only = $('only').checked;
	const shown = all.filter((o) => o.name.toLowerCase().includes(wanted) && (!only || needsLook(o)));
	orgs.render(shown.map((o) => [o.name, o]));
	show($('orgs'), all.length > 1);
	show($('org-none'), shown.length === 0);
	renderTally(all);
}

// renderTally says how all orgs are, and leads to those in trouble.
function renderTally(all) {
	const tally = $('tally');
	const parts = [];
	const trouble = all.filter((o) => o.trouble);
	const of = (n, word) => n && parts.push(n + ' ' + word);
	if (all.length > 1) parts.push(all.length + ' orgs');
	of(all.filter((o) => o.paused).length, 'paused');
	of(all.filter((o) => o.closed > 0 && !o.paused && !o.trouble).length, 'told to stay away');
	const unknowns = all.reduce((n, o) => n + o.unknown, 0);
	if (unknowns) parts.push(count(unknowns) + ' unknown');
	const text = parts.join(' · ');
	const key = text + '\n' + trouble.map((o) => o.name).join('\n');
	if (tally.dataset.key === key) return;
	tally.dataset.key = key;
	const links = trouble.slice(0, 3).map((o) => {
		const a = document.createElement('a');
		a.href = address(o.name);
		a.textContent = o.name;
		return a;
	});
	tally.replaceChildren(text);
	if (!links.length) return;
	const bad = document.createElement('span');
	bad.className = 'bad';
	bad.append((text ? ' · ' : '') + trouble.length + ' in trouble: ');
	links.forEach((a, i) => bad.append(i ? ', ' : '', a));
	if (trouble.length > links.length) bad.append(' and ' + plural(trouble.length - links.length, 'other', 'others'));
	tally.append(bad);
}

$('find').addEventListener('input', renderOrgs);
$('only').addEventListener('change', renderOrgs);

// ---- the open org

const limitKey = (l) => l.name + '\n' + l.scope;

const limits = new List($('limits'), {
	create(l, key) {
		const row = make('t-limit');
		const columns = page.columns.get(key) ?? new Columns();
		page.columns.set(key, columns);
		row.plot = new Plot(row.fields.plot, columns, (i) => {
			row.at = i;
			legend(row);
		});
		row.end = () => row.plot.end();
		return row;
	},
	update(row, l) {
		const f = row.fields;
		put(f.name, l.name);
		put(f.scope, l.scope);
		row.element.classList.toggle('closed', l.retryAfter > 0);
		put(f.gate, held(l));
		put(f.told, told(l));
		const how = learns(l);
		show(f.learned, how !== '');
		put(f.learning, how);
		put(f.sure, percent(l.sure) + ' sure');
		f.bar.style.width = Math.round(100 * Math.min(1, Math.max(0, l.sure ?? 0))) + '%';
		row.limit = l;
		row.plot.columns.add(page.overview.at, l.level, l.rates, page.overview.keep);
		row.plot.draw(page.overview.at, plotSpan(), l.burst);
		legend(row);
		f.plot.setAttribute('aria-label', 'Plot of ' + l.name + ': level ' + rate(l.level) + (l.burst ? ' of ' + rate(l.burst) : '') + ', sent ' + rate(l.rates[0]) + ', accepted ' + rate(l.rates[1]) + ', rejected ' + rate(l.rates[2]) + ' a second');
	},
});

// legend shows the numbers under the pointer, or else those of now.
function legend(row) {
	const l = row.limit;
	if (!l) return;
	const f = row.fields;
	const data = row.plot.columns.data;
	const i = row.at != null && row.at < data[0].length ? row.at : null;
	const [level, sent, accepted, rejected] = i == null ? [l.level, ...l.rates] : data.slice(1).map((c) => c[i]);
	put(f.level, rate(level) + (l.burst ? ' of ' + rate(l.burst) : ''));
	put(f.sent, rate(sent) + '/s');
	put(f.accepted, rate(accepted) + '/s');
	put(f.rejected, rate(rejected) + '/s');
	put(f.when, i == null ? '' : 'at ' + clock(data[0][i] * 1000));
}

function plotSpan() {
	const chosen = Number(document.querySelector('input[name=span]:checked').value);
	return chosen || page.overview.keep / 1000;
}

for (const input of document.querySelectorAll('input[name=span]')) {
	input.addEventListener('change', () => {
		for (const row of limits.rows.values()) row.plot.draw(page.overview.at, plotSpan(), row.limit.burst);
	});
}

const callers = new List($('callers'), {
	create: () => make('t-caller'),
	update(row, c) {
		const f = row.fields;
		put(f.name, c.name);
		put(f.share, percent(c.share));
		f.bar.style.width = (100 * c.share).toFixed(1) + '%';
		const parts = [count(c.sent) + ' sent'];
		if (c.waiting) parts.push(count(c.waiting) + ' held');
		if (c.queued) parts.push(count(c.queued) + ' queued');
		if (c.weight !== 1 && c.weight != null) parts.push('weight ' + rate(c.weight));
		put(f.line, parts.join(' · '));
	},
});

function renderCallers(o) {
	const sum = o.callers.reduce((n, c) => n + c.sent, 0);
	// By name, so that two who are close do not change places all the time.
	const byName = [...o.callers].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
	callers.render(byName.map((c) => [c.name, { ...c, share: sum ? c.sent / sum : 0 }]));
	show($('callers-none'), o.callers.length === 0);
	put($('callers-over'), o.callers.length ? 'share of the last ' + (o.over >= 59500 ? 'minute' : span(o.over)) : '');
}

const waiting = waitingRows($('waiting'), now);

const unknown = executionRows($('unknown'), now, {
	when: 'since',
	gone: 'resolved',
	acts: [
		{
			action: 'send-again',
			word: 'Send again…',
			title: 'Send it again?',
			text: 'It was sent and its answer never came: it may have been executed. If it is sent again, it may be executed twice.',
			yes: 'Send again: it may run twice',
			said: 'Queued again.',
		},
		{
			action: 'give-up',
			word: 'Give up…',
			title: 'Give it up?',
			text: 'It may have been executed, or not. It is not sent again, it counts as failed, and that can’t be taken back.',
			yes: 'Give up: it may have run',
			said: 'Given up.',
		},
	],
	on: (act, row) => resolve('resolve', act, row, $('unknown-title')),
});

const queued = executionRows($('queued'), now, {
	when: 'accepted',
	gone: 'no longer queued',
	acts: [
		{
			action: 'cancel',
			word: 'Cancel…',
			title: 'Cancel it?',
			text: 'It has not been sent, and it will not be. Whoever asked for it was told that it is accepted.',
			yes: 'Cancel it',
			said: 'Cancelled.',
		},
	],
	on: (act, row) => resolve('cancel', act, row, $('queued-title')),
});

async function resolve(where, act, row, heading) {
	const { id, method, path, caller } = row.item;
	const what = (method + ' ' + path).trim() + ', asked for by ' + caller;
	if (!(await ask({ ...act, what }))) return;
	try {
		await send(where, where === 'resolve' ? { id, action: act.action } : { id });
		say(act.said);
		done(row, heading);
	} catch (e) {
		fail('Nothing was changed: ' + e.message);
	}
}

$('pause').addEventListener('click', async () => {
	const button = $('pause');
	if (!page.view || button.getAttribute('aria-busy') === 'true') return;
	const what = page.view.paused ? 'resume' : 'pause';
	button.setAttribute('aria-busy', 'true');
	try {
		await send(what, { org: page.org });
	} catch (e) {
		fail('Could not ' + what + ': ' + e.message);
	} finally {
		button.removeAttribute('aria-busy');
	}
});

$('f-unknown-link').addEventListener('click', (e) => {
	e.preventDefault();
	$('unknown-section').scrollIntoView();
	$('unknown-title').focus({ preventScroll: true });
});

// hold keeps the room that a list has taken, so that what is below stays where
// it is when the list gets shorter. It is given back where nobody can see it.
function hold(list) {
	if (list.style.minHeight && list.getBoundingClientRect().top > innerHeight) list.style.minHeight = '';
	const height = list.offsetHeight;
	if (height > parseFloat(list.style.minHeight || 0)) list.style.minHeight = height + 'px';
}

function more(element, shown, all, none) {
	put(element, all > shown ? 'the first ' + shown + ' of ' + count(all) : all > 0 ? count(all) : none);
}

function renderOrg(o) {
	page.view = o;
	put($('org-name'), o.name);
	const pause = o.paused ? 'Resume' : 'Pause';
	put($('pause'), pause);
	$('pause').setAttribute('aria-label', pause + ' ' + o.name);
	show($('peak'), o.peak !== '');
	put($('peak'), o.peak);

	const h = headline(o);
	$('org').dataset.state = h.kind;
	put($('headline'), h.text);
	if (page.headline && page.headline !== h.kind) say(o.name + ': ' + h.text);
	page.headline = h.kind;

	put($('f-rate'), rate(o.rate));
	put($('f-flight'), count(o.inFlight));
	put($('f-held'), count(o.held));
	put($('f-queued'), count(o.queue.queued));
	put($('f-unknown'), count(o.queue.unknown));
	$('f-unknown-box').classList.toggle('look', o.queue.unknown > 0);

	show($('org'), true);
	show($('empty'), false);
	show($('limits-none'), o.limits.length === 0);
	limits.render(o.limits.map((l) => [limitKey(l), l]));
	renderCallers(o);

	put($('queue-estimate'), o.queue.estimate > 0 ? 'the last goes in ' + span(o.queue.estimate) : '');
	put($('q-queued'), count(o.queue.queued));
	put($('q-oldest'), o.queue.oldest > 0 ? span(o.queue.oldest) : '–');
	put($('q-done'), count(o.queue.done));
	put($('q-failed'), count(o.queue.failed));
	put($('q-expired'), count(o.queue.expired));

	waiting(o.waiting);
	more($('waiting-more'), o.waiting.length, Math.max(o.held, o.waiting.length), 'nothing waits');
	unknown(o.unknownRows);
	show($('unknown-none'), o.queue.unknown === 0);
	show($('unknown-why'), o.queue.unknown > 0);
	more($('unknown-more'), o.unknownRows.length, o.queue.unknown, '');
	queued(o.queuedRows);
	more($('queued-more'), o.queuedRows.length, o.queue.queued, 'the queue is empty');
	for (const id of ['waiting', 'unknown', 'queued']) hold($(id));
}

// ---- what the gateway tells

const stream = new Stream({
	history(past) {
		page.columns.clear();
		limits.clear();
		for (const l of past.limits) page.columns.set(limitKey(l), Columns.of(past.at, l));
	},
	view({ overview, org }) {
		page.overview = overview;
		put($('version'), overview.version);
		put($('span-all'), span(overview.keep).replace('.0', ''));
		renderOrgs();
		// With one org there is nothing to choose.
		if (page.org === '' && overview.orgs.length === 1) {
			open(overview.orgs[0].name);
			return;
		}
		if (org) {
			renderOrg(org);
			return;
		}
		show($('org'), false);
		if (page.org !== '') {
			show($('empty'), true);
			put($('empty'), 'There is no org of this name.');
		} else {
			show($('empty'), overview.orgs.length === 0);
			put($('empty'), 'No org is configured.');
		}
	},
	tell(what) {
		const was = document.body.dataset.link;
		document.body.dataset.link = what;
		const notices = {
			live: page.overview?.draining ? 'The gateway is about to stop: it takes no new call, and ends what it has.' : '',
			lost: page.overview ? 'Connection lost. What you see is of ' + clock(now()) + '. Trying again…' : 'The gateway does not answer. Trying again…',
			'signed-out': 'You are no longer signed in. Reload the page to sign in again.',
		};
		put($('notice'), notices[what]);
		show($('notice'), notices[what] !== '');
		put($('link'), what === 'live' ? 'live · ' + clock(now()) : page.overview ? 'of ' + clock(now()) : 'no connection');
		if (what === 'live' && was === 'lost') say('Connected again.');
	},
});

open(named());
