package genesys

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Region is one of the places where Genesys Cloud runs. An org lives in exactly
// one of them, and its API and login answer only there.
type Region struct {
	// Name is the name that AWS has for it, such as eu-west-1.
	Name string
	// Domain is what the hosts of the region end in, such as
	// mypurecloud.ie.
	Domain string
}

// APIURL returns the address of the API, without a slash at its end.
func (r Region) APIURL() string { return "https://api." + r.Domain }

// LoginURL returns the address of the login, without a slash at its end.
func (r Region) LoginURL() string { return "https://login." + r.Domain }

// String returns the name and the domain.
func (r Region) String() string { return r.Name + " (" + r.Domain + ")" }

// The regions of the official SDKs.
var regions = [...]Region{
	{"us-east-1", "mypurecloud.com"},
	{"us-east-2", "use2.us-gov-pure.cloud"},
	{"us-west-2", "usw2.pure.cloud"},
	{"ca-central-1", "cac1.pure.cloud"},
	{"sa-east-1", "sae1.pure.cloud"},
	{"mx-central-1", "mxc1.pure.cloud"},
	{"eu-west-1", "mypurecloud.ie"},
	{"eu-west-2", "euw2.pure.cloud"},
	{"eu-central-1", "mypurecloud.de"},
	{"eu-central-2", "euc2.pure.cloud"},
	{"eusc-de-east-1", "edee1.eusc-pure.cloud"},
	{"me-central-1", "mec1.pure.cloud"},
	{"ap-south-1", "aps1.pure.cloud"},
	{"ap-southeast-1", "apse1.pure.cloud"},
	{"ap-southeast-2", "mypurecloud.com.au"},
	{"ap-northeast-1", "mypurecloud.jp"},
	{"ap-northeast-2", "apne2.pure.cloud"},
	{"ap-northeast-3", "apne3.pure.cloud"},
}

// Regions returns all regions, from west to east as far as possible. The slice
// is the caller's.
func Regions() []Region { return slices.Clone(regions[:]) }

// LookupRegion finds a region by its AWS name ("eu-west-1") or by its domain
// ("mypurecloud.ie"), in capitals or not; the address of one of its hosts
// ("https://api.mypurecloud.ie") will do. Any other s gets a *[RegionError].
func LookupRegion(s string) (Region, error) {
	word := strings.ToLower(strings.TrimSpace(s))
	host := word
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	host, _, _ = strings.Cut(host, "/")
	host, _, _ = strings.Cut(host, ":")
	host = strings.TrimSuffix(host, ".")
	_, parent, _ := strings.Cut(host, ".")
	for _, r := range regions {
		if word == r.Name || host == r.Domain || parent == r.Domain {
			return r, nil
		}
	}
	return Region{}, noRegion(s, cmp.Or(host, word), word)
}

// RegionError says that there is no such region.
type RegionError struct {
	// Given is what was looked up.
	Given string
	// Place is the city, in capitals as one writes it, if Given names a
	// time zone, a city or a media region; else "".
	Place string
	// Near are the regions that were probably meant, the nearest first:
	// those of the same part of the world, or with a similar name. Never
	// empty.
	Near []Region

	kind  placeKind
	world string
}

type placeKind int

const (
	_         placeKind = iota
	timeZone            // Given is a time zone
	city                // Given is a city with a region
	mediaOnly           // Given is a region of AWS where only media is served
)

// Error says what there is instead.
func (e *RegionError) Error() string {
	var b strings.Builder
	if strings.TrimSpace(e.Given) == "" {
		b.WriteString("no region given: name it as AWS does, such as ")
	} else {
		fmt.Fprintf(&b, "there is no API region %q: ", e.Given)
		switch e.kind {
		case timeZone:
			fmt.Fprintf(&b, "%s is a time zone, which says when an org has its peak, not where its API is; ", e.Place)
		case mediaOnly:
			fmt.Fprintf(&b, "%s is a time zone and a region for media only; ", e.Place)
		case city:
			fmt.Fprintf(&b, "%s is a city; ", e.Place)
		}
		switch e.world {
		case "":
			b.WriteString("did you mean ")
		default:
			fmt.Fprintf(&b, "%s is served by ", e.world)
		}
	}
	for i, r := range e.Near {
		switch {
		case i > 0 && i == len(e.Near)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(r.String())
	}
	b.WriteString("; an org's region stands in the address of its admin pages, apps.<domain>")
	return b.String()
}

// The parts of the world, and what the names of their regions begin with.
var worlds = map[string][]string{
	"Europe":          {"eu-", "eusc-"},
	"North America":   {"us-", "ca-", "mx-"},
	"South America":   {"sa-"},
	"the Middle East": {"me-"},
	"Asia":            {"ap-south-", "ap-southeast-1", "ap-northeast-", "me-"},
	"Australia":       {"ap-southeast-2"},
	"the Pacific":     {"ap-southeast-", "ap-northeast-"},
	"Africa":          {"eu-", "me-"},
}

// The areas of the time zone database, and the part of the world for each.
var zoneAreas = map[string]string{
	"europe": "Europe", "atlantic": "Europe", "arctic": "Europe",
	"america": "North America", "us": "North America", "canada": "North America", "mexico": "North America",
	"brazil": "South America", "chile": "South America",
	"asia": "Asia", "indian": "Asia", "australia": "Australia", "pacific": "the Pacific", "africa": "Africa",
}

// Cities of which people think as of a region, with the region that is there,
// or the part of the world.
var cities = map[string]string{
	"paris": "Europe", "madrid": "Europe", "milan": "Europe", "berlin": "Europe", "brussels": "Europe",
	"stockholm": "Europe", "amsterdam": "Europe", "warsaw": "Europe", "vienna": "Europe", "rome": "Europe",
	"dublin": "eu-west-1", "ireland": "eu-west-1", "london": "eu-west-2", "frankfurt": "eu-central-1",
	"zurich": "eu-central-2", "brandenburg": "eusc-de-east-1", "virginia": "us-east-1", "ohio": "us-east-2",
	"oregon": "us-west-2", "montreal": "ca-central-1", "sao paulo": "sa-east-1", "queretaro": "mx-central-1",
	"dubai": "me-central-1", "mumbai": "ap-south-1", "singapore": "ap-southeast-1", "sydney": "ap-southeast-2",
	"tokyo": "ap-northeast-1", "seoul": "ap-northeast-2", "osaka": "ap-northeast-3",
}

// noRegion makes the error for s, of which host and word are the readings.
func noRegion(s, host, word string) *RegionError {
	e := &RegionError{Given: s}
	name := strings.NewReplacer("_", " ", "-", " ").Replace(word)
	switch area, place, ok := cutZone(word); {
	case word == "eu-west-3":
		e.kind, e.Place, e.world = mediaOnly, "Paris", "Europe"
	case ok && strings.HasSuffix(place, "paris"):
		e.kind, e.Place, e.world = mediaOnly, "Paris", "Europe"
	case ok:
		e.kind, e.Place, e.world = timeZone, titled(place), zoneAreas[area]
		if r := cities[place]; area == "america" && strings.HasPrefix(r, "sa-") {
			e.world = "South America"
		}
	case cities[name] != "":
		e.kind, e.Place, e.world = city, titled(name), cities[name]
		if name == "paris" {
			e.kind = mediaOnly
		}
		if worlds[e.world] == nil { // a region is right there
			e.Near, e.world = within([]string{e.world}), ""
			return e
		}
	default:
		for _, world := range [...]string{"Europe", "North America", "South America", "the Middle East", "Africa"} {
			if startsWith(word, worlds[world]) || world == "Africa" && strings.HasPrefix(word, "af-") {
				e.world = world
				break
			}
		}
	}
	if e.world != "" {
		e.Near = within(worlds[e.world])
	} else {
		e.Near = Regions()
	}
	distance := func(r Region) int { return min(edits(word, r.Name), edits(host, r.Domain)) }
	if e.kind == 0 || e.world == "" {
		slices.SortStableFunc(e.Near, func(a, b Region) int { return cmp.Compare(distance(a), distance(b)) })
	}
	if e.world == "" {
		e.Near = e.Near[:3]
	}
	if e.kind == timeZone { // the region in that very city comes first
		there := cities[strings.ToLower(e.Place)]
		slices.SortStableFunc(e.Near, func(a, b Region) int {
			switch there {
			case a.Name:
				return -1
			case b.Name:
				return 1
			}
			return 0
		})
	}
	return e
}

// cutZone splits what looks like the name of a time zone: Europe/Paris,
// europe-paris, America/Argentina/Ushuaia.
func cutZone(word string) (area, place string, ok bool) {
	i := strings.IndexAny(word, "/-_ ")
	if i < 0 || zoneAreas[word[:i]] == "" {
		return "", "", false
	}
	area, place = word[:i], word[i+1:]
	if strings.ContainsAny(place, "0123456789.:") || place == "" {
		return "", "", false // us-west-1
	}
	place = place[strings.LastIndexByte(place, '/')+1:]
	return area, strings.NewReplacer("_", " ", "-", " ").Replace(place), true
}

// titled writes each word with a capital.
func titled(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, " ")
}

func startsWith(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// within returns the regions whose names begin with one of prefixes.
func within(prefixes []string) (found []Region) {
	for _, r := range regions {
		if startsWith(r.Name, prefixes) {
			found = append(found, r)
		}
	}
	return found
}

// edits counts the characters to insert, drop or replace between a and b
// (Levenshtein), looking at 64 of each.
func edits(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
