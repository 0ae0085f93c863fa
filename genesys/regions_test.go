package genesys

import (
	"errors"
	"strings"
	"testing"
)

func TestLookupRegion(t *testing.T) {
	for _, r := range Regions() {
		for _, s := range []string{
			r.Name, strings.ToUpper(r.Name), r.Domain, strings.ToUpper(r.Domain), " " + r.Name + "\n",
			"api." + r.Domain, "login." + r.Domain, "apps." + r.Domain, r.APIURL(), r.LoginURL(), r.APIURL() + "/api/v2/flows", r.APIURL() + ":443/", r.Domain + ".",
		} {
			if got, err := LookupRegion(s); got != r || err != nil {
				t.Errorf("%q: %v, %v, want %v", s, got, err, r)
			}
		}
	}
	if n := len(Regions()); n != 18 {
		t.Errorf("%d regions, want 18", n)
	}
	r, err := LookupRegion("eu-west-1")
	if err != nil || r.APIURL() != "https://api.mypurecloud.ie" || r.LoginURL() != "https://login.mypurecloud.ie" {
		t.Errorf("%v, %v", r, err)
	}
	Regions()[0].Name = "changed"
	if Regions()[0].Name != "us-east-1" {
		t.Error("the table was changed through the slice")
	}
}

func TestNoSuchRegion(t *testing.T) {
	const europe = "eu-west-1 eu-west-2 eu-central-1 eu-central-2 eusc-de-east-1"
	for _, c := range []struct {
		given, place, near string // near: those that come first
		says               string
	}{
		{"europe-paris", "Paris", europe, "Paris is a time zone and a region for media only; Europe is served by eu-west-1 (mypurecloud.ie)"},
		{"Europe/Paris", "Paris", europe, "media only"},
		{"paris", "Paris", europe, "media only"},
		{"PARIS", "Paris", europe, "media only"},
		{"eu-west-3", "Paris", europe, "media only"},
		{"Europe/Berlin", "Berlin", europe, "Berlin is a time zone"},
		{"europe_madrid", "Madrid", europe, "time zone"},
		{"America/New_York", "New York", "us-east-1 us-east-2 us-west-2 ca-central-1 mx-central-1", "New York is a time zone"},
		{"America/Argentina/Ushuaia", "Ushuaia", "us-east-1", "time zone"},
		{"America/Sao_Paulo", "Sao Paulo", "sa-east-1", "South America is served"},
		{"Asia/Tokyo", "Tokyo", "ap-northeast-1 me-central-1 ap-south-1", "time zone"},
		{"Europe/London", "London", "eu-west-2 eu-west-1", "time zone"},
		{"Australia/Sydney", "Sydney", "ap-southeast-2", "time zone"},
		{"Africa/Lagos", "Lagos", "eu-west-1", "Africa is served by"},
		{"frankfurt", "Frankfurt", "eu-central-1", "Frankfurt is a city; did you mean eu-central-1"},
		{"sao-paulo", "Sao Paulo", "sa-east-1", "city"},
		{"berlin", "Berlin", europe, "Berlin is a city; Europe is served"},
		{"eu-west-9", "", "eu-west-1 eu-west-2", "Europe is served by"},
		{"eu-north-1", "", "eu-west-1", "Europe"},
		{"us-west-1", "", "us-west-2", "North America"},
		{"us-east-1a", "", "us-east-1", "North America"},
		{"af-south-1", "", "eu-west-1", "Africa"},
		{"ap-southeast-4", "", "ap-southeast-1 ap-southeast-2", "did you mean"},
		{"mypurecloud.co", "", "us-east-1", "did you mean us-east-1 (mypurecloud.com)"},
		{"https://api.mypurecloud.fr", "", "", "did you mean"},
		{"euw1.pure.cloud", "", "eu-west-2", "did you mean"},
		{"x", "", "", "did you mean"},
		{"", "", "", "no region given"},
	} {
		_, err := LookupRegion(c.given)
		e, ok := errors.AsType[*RegionError](err)
		if !ok {
			t.Errorf("%q: %v, want a RegionError", c.given, err)
			continue
		}
		var near []string
		for _, r := range e.Near {
			near = append(near, r.Name)
		}
		got := strings.Join(near, " ")
		if e.Given != c.given || e.Place != c.place || !strings.HasPrefix(got, c.near) || got == "" || !strings.Contains(e.Error(), c.says) {
			t.Errorf("%q: place %q, near %s\n%v\nwant %q, %s, %q", c.given, e.Place, got, e, c.place, c.near, c.says)
		}
	}
}

func FuzzLookupRegion(f *testing.F) {
	for _, s := range []string{"eu-west-1", "europe-paris", "https://api.mypurecloud.ie/x", "europe/", "/", "é/ü", "africa-", "https://:", "europe- "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := LookupRegion(s)
		if err == nil {
			if again, err := LookupRegion(r.Name); again != r || err != nil {
				t.Errorf("%v is not found by its own name: %v", r, err)
			}
			return
		}
		e, ok := errors.AsType[*RegionError](err)
		if !ok || len(e.Near) == 0 || e.Error() == "" {
			t.Errorf("%q: %v", s, err)
		}
	})
}
