// How numbers, times and states are said.

const grouped = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });
const time = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

export function count(n) {
	return n == null ? '–' : grouped.format(n);
}

// rate is a number of requests a second, without the unit.
export function rate(n) {
	if (n == null) return '–';
	if (n >= 100) return grouped.format(n);
	const text = n.toFixed(n < 0.1 ? 2 : n < 10 ? 1 : 0);
	return text.replace(/\.0+$/, '');
}

export function percent(part) {
	if (part == null) return '–';
	if (part > 0 && part < 0.01) return '< 1 %';
	return Math.round(part * 100) + ' %';
}

// span says a duration of ms milliseconds, in its two largest units.
export function span(ms) {
	const s = Math.max(0, ms) / 1000;
	if (s < 10) return s.toFixed(1) + ' s';
	if (s < 59.5) return Math.round(s) + ' s';
	const whole = Math.round(s);
	if (whole < 3600) return two(whole, 60, 'min', 's');
	if (whole < 86400) return two(Math.round(whole / 60), 60, 'h', 'min');
	return two(Math.round(whole / 3600), 24, 'd', 'h');
}

function two(n, by, large, small) {
	const rest = n % by;
	return Math.floor(n / by) + ' ' + large + (rest ? ' ' + rest + ' ' + small : '');
}

export function clock(ms) {
	return time.format(ms);
}

// stamp is a clock, with its day unless that is today's.
export function stamp(ms, now) {
	const same = new Date(ms).toDateString() === new Date(now).toDateString();
	return same ? clock(ms) : day.format(ms) + ' ' + clock(ms);
}

export function plural(n, one, many) {
	return count(n) + ' ' + (n === 1 ? one : many);
}

const learning = {
	ramp: 'finding the rate',
	trust: 'learns, goes by what it was told',
	search: 'searching for the rate',
	track: 'follows the server',
	contend: 'shares it with others',
	window: 'counts in windows',
};

// learns says what the learner of a limit is at, or '' if there is none.
export function learns(l) {
	return !l.learning || l.learning === 'off' ? '' : learning[l.learning] ?? l.learning;
}

// told says what is believed of a limit.
export function told(l) {
	const parts = [];
	if (l.window > 0) {
		parts.push((l.burst ? rate(l.burst) : '?') + ' in ' + span(l.window).replace(/\.0 /, ' '));
	} else if (l.rate > 0) {
		parts.push(rate(l.rate) + '/s' + (l.burst ? ', holds ' + rate(l.burst) : ''));
	}
	if (l.algorithm) parts.push(l.algorithm === 'not yet known' ? 'algorithm not yet known' : l.algorithm);
	if (l.pace > 0 && Math.abs(l.pace - l.rate) > 0.02 * l.rate) parts.push('sent at ' + rate(l.pace) + '/s');
	if (l.others > 0) parts.push('others use about ' + rate(l.others) + '/s');
	return parts.join(' · ');
}

// held says what holds the calls back that draw on a limit, or '' if nothing
// does.
export function held(l) {
	const parts = [];
	if (l.retryAfter > 0) parts.push('closed for ' + span(l.retryAfter) + ': Retry-After');
	if (l.waiting > 0) parts.push(plural(l.waiting, 'call waits', 'calls wait'));
	return parts.join(' · ');
}

// state is an org's: kind is for the style, word for the list.
export function state(o) {
	if (o.trouble) return { kind: 'trouble', word: o.trouble };
	if (o.paused) return { kind: 'paused', word: 'paused' };
	if (o.closed > 0) return { kind: 'closed', word: 'Retry-After, ' + span(o.closed) };
	if (o.held > 0) return { kind: 'waits', word: plural(o.held, 'call waits', 'calls wait') };
	if (o.queued > 0) return { kind: 'waits', word: 'works off its queue' };
	if (o.rate > 0) return { kind: 'flows', word: 'flows' };
	return { kind: 'idle', word: 'quiet' };
}

// needsLook says whether a person should look at an org.
export function needsLook(o) {
	return Boolean(o.trouble) || o.paused || o.closed > 0 || o.unknown > 0;
}

// headline says in a sentence or two how the open org is, and why.
export function headline(o) {
	const wait = o.held > 0 ? ' ' + plural(o.held, 'call waits', 'calls wait') + '.' : '';
	if (o.trouble) return { kind: 'trouble', text: sentence(o.trouble) + wait };
	if (o.paused) {
		return { kind: 'paused', text: 'Paused: nothing is sent until somebody resumes it.' + wait };
	}
	const shut = o.limits.reduce((a, l) => (l.retryAfter > (a?.retryAfter ?? 0) ? l : a), null);
	if (shut) {
		return { kind: 'closed', text: 'The server has asked to stay away: ' + shut.name + ' opens in ' + span(shut.retryAfter) + '.' + wait };
	}
	if (o.held > 0) {
		const tight = o.limits.reduce((a, l) => (l.waiting > (a?.waiting ?? 0) ? l : a), null);
		const why = tight ? ' for ' + tight.name + (tight.pace || tight.rate ? ', which lets ' + rate(tight.pace || tight.rate) + ' a second through' : '') : '';
		return { kind: 'waits', text: plural(o.held, 'call waits', 'calls wait') + why + '.' };
	}
	if (o.queue.queued > 0) {
		const last = o.queue.estimate > 0 ? '; the last goes in about ' + span(o.queue.estimate) : '';
		return { kind: 'waits', text: plural(o.queue.queued, 'execution is queued', 'executions are queued') + last + '.' };
	}
	if (o.rate > 0) return { kind: 'flows', text: 'All goes through at once.' };
	return { kind: 'idle', text: 'Quiet: nothing is sent, nothing waits.' };
}

function sentence(text) {
	const first = text.charAt(0).toUpperCase() + text.slice(1);
	return /[.!?…]$/.test(first) ? first : first + '.';
}
