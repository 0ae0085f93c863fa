// The one connection over which the page learns everything. When it drops, it
// is made again, a little later each time; when nothing comes over it, it
// counts as dropped.

const first = 1000;
const most = 10000;

export class Stream {
	// tell is called with 'live', 'lost' or 'signed-out': how the
	// connection is.
	constructor({ history, view, tell }) {
		Object.assign(this, { history, view, tell });
		this.org = '';
		this.wait = first;
		this.every = 1000;
		this.last = Date.now(); // when something last came
		setInterval(() => this.watch(), 1000);
		document.addEventListener('visibilitychange', () => this.look());
	}

	open(org) {
		this.org = org;
		this.connect();
	}

	connect() {
		this.close();
		this.tried = Date.now();
		const source = new EventSource('events?org=' + encodeURIComponent(this.org));
		this.source = source;
		const on = (name, f) =>
			source.addEventListener(name, (e) => {
				if (source !== this.source) return;
				this.last = Date.now();
				f.call(this, JSON.parse(e.data));
			});
		on('history', (data) => this.history(data));
		on('view', (data) => {
			this.wait = first;
			this.every = data.overview.every;
			this.view(data);
			this.tell('live');
		});
		source.addEventListener('error', () => {
			if (source === this.source) this.again();
		});
	}

	close() {
		this.source?.close();
		this.source = null;
		clearTimeout(this.timer);
	}

	// again waits and connects anew. The wait is drawn by chance, so that the
	// browsers that a restart has cut off do not come back as one.
	again() {
		this.close();
		this.tell('lost');
		this.why();
		this.timer = setTimeout(() => this.connect(), this.wait * (0.5 + Math.random()));
		this.wait = Math.min(this.wait * 2, most);
	}

	// why asks for the page, because an EventSource does not say how it was
	// refused.
	async why() {
		try {
			const answer = await fetch('./', { method: 'HEAD', cache: 'no-store', redirect: 'manual' });
			if (this.source) return;
			if (answer.status === 401 || answer.status === 403 || answer.type === 'opaqueredirect') this.tell('signed-out');
		} catch {
			// The gateway is away, as was said.
		}
	}

	watch() {
		if (!this.source) return;
		const quiet = Date.now() - Math.max(this.last, this.tried);
		if (quiet > Math.max(15000, 5 * this.every)) this.again();
		else if (Date.now() - this.last > Math.max(4000, 3 * this.every)) this.tell('lost');
	}

	// look gives the connection up while nobody looks: a browser has only six
	// for a host.
	look() {
		clearTimeout(this.leaving);
		if (document.hidden) {
			this.leaving = setTimeout(() => this.close(), 30000);
		} else if (!this.source) {
			this.wait = first;
			this.connect();
		}
	}
}
