// One limit's plot: the level as water, on the left scale; sent, accepted and
// rejected a second, on the right one.

const { uPlot } = window;
const height = 150;
const dark = matchMedia('(prefers-color-scheme: dark)');

function colour(name) {
	return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
}

const hour = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const full = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

// Columns are the points of a limit: times in seconds, as uPlot wants them.
export class Columns {
	constructor() {
		this.data = [[], [], [], [], []];
	}

	static of(at, l) {
		const c = new Columns();
		c.data = [at.map((t) => t / 1000), l.level, l.sent, l.accepted, l.rejected];
		return c;
	}

	// add appends a point and forgets those from before keep milliseconds.
	add(at, level, rates, keep) {
		const x = this.data[0];
		if (x.length && at / 1000 <= x[x.length - 1]) return;
		[at / 1000, level, ...rates].forEach((v, i) => this.data[i].push(v));
		let old = 0;
		while (x[old] < (at - keep) / 1000) old++;
		if (old) this.data.forEach((column) => column.splice(0, old));
	}
}

export class Plot {
	// point is called with the index of the point under the pointer, or null.
	constructor(root, columns, point) {
		Object.assign(this, { root, columns });
		this.span = 300;
		this.now = 0;
		this.top = 1; // of the level's scale
		const line = (name, more) => ({ stroke: () => colour(name), points: { show: false }, spanGaps: false, ...more });
		const axis = (scale, more) => ({
			scale,
			stroke: () => colour('muted'),
			font: '11px system-ui, sans-serif',
			ticks: { show: false },
			...more,
		});
		const grid = { stroke: () => colour('grid'), width: 1 };
		this.u = new uPlot(
			{
				width: Math.max(200, root.clientWidth),
				height,
				padding: [8, 0, 0, 0],
				legend: { show: false },
				cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
				scales: {
					x: { time: true, range: () => [this.now - this.span, this.now] },
					level: { range: () => [0, this.top] },
					rate: { range: (_, __, max) => [0, Math.max(1, (max || 0) * 1.1)] },
				},
				axes: [
					axis('x', { grid: { show: false }, size: 22, gap: 4, values: (_, ticks, __, ___, step) => ticks.map((t) => (step < 60 ? full : hour).format(t * 1000)), space: 72 }),
					axis('level', { grid, size: 40, gap: 4, stroke: () => colour('level-ink'), space: 32 }),
					axis('rate', { side: 1, grid: { show: false }, size: 40, gap: 4, space: 32, values: (_, ticks) => ticks.map((t) => t + '/s') }),
				],
				series: [
					{},
					line('level', { scale: 'level', width: 1, fill: () => colour('level-fill') }),
					line('sent', { scale: 'rate', width: 1.5, dash: [4, 3] }),
					line('accepted', { scale: 'rate', width: 1.5 }),
					line('rejected', { scale: 'rate', width: 0, fill: () => colour('rejected'), paths: uPlot.paths.bars({ size: [0.9, 12, 2] }) }),
				],
				hooks: { setCursor: [(u) => point(u.cursor.left >= 0 ? u.cursor.idx : null)] },
			},
			columns.data,
			root,
		);
		this.sized = new ResizeObserver(() => this.u.setSize({ width: Math.max(200, root.clientWidth), height }));
		this.sized.observe(root);
		this.theme = () => this.u.redraw();
		dark.addEventListener('change', this.theme);
	}

	// draw shows the columns up to now, and span seconds back.
	draw(now, span, burst) {
		this.now = now / 1000;
		this.span = span;
		const [x, level, sent] = this.columns.data;
		let top = burst || 0;
		for (let i = x.length - 1; i >= 0 && x[i] >= this.now - span; i--) top = Math.max(top, level[i] ?? 0);
		this.top = Math.max(1, top * 1.08);
		this.u.setData(this.columns.data);
		const last = x.length - 1;
		Object.assign(this.root.dataset, { points: x.length, at: Math.round(x[last] * 1000), level: level[last] ?? '', sent: sent[last] ?? '' });
	}

	end() {
		this.sized.disconnect();
		dark.removeEventListener('change', this.theme);
		this.u.destroy();
	}
}
