package ratehdr

import (
	"net/http"
	"testing"
	"time"
)

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{
		"42", "0.25", "1.0000000000001", "-1", "10000000000", "18446744073709551617",
		"3, 8,5", "Thu, 05 Nov 2026 11:00:42 GMT, 5", "Thursday, 05-Nov-26 11:00:42 GMT",
		"Thu Nov  5 11:00:42 2026", "Fri, 31 Dec 9999 23:59:59 GMT", "2678400.000000001", "NaN", "",
	} {
		f.Add(v, "7", "Thu, 05 Nov 2026 11:00:00 GMT", now.Unix())
		f.Add(v, "", "", int64(-1)<<63)
	}
	f.Fuzz(func(t *testing.T, a, b, date string, unix int64) {
		at := time.Unix(unix, 999_999_999)
		get := func(values ...string) (time.Duration, bool) {
			return RetryAfter(http.Header{"Retry-After": values, "Date": {date}}, at)
		}
		wa, oka := get(a)
		wb, okb := get(b)
		both, ok := get(a, b)
		believable(t, wa, oka)
		believable(t, wb, okb)
		if both != max(wa, wb) || ok != (oka || okb) {
			t.Errorf("%q gives %v, %v and %q %v, %v, but both %v, %v", a, wa, oka, b, wb, okb, both, ok)
		}
	})
}

func FuzzInMessage(f *testing.F) {
	for _, s := range []string{
		"Rate limit exceeded the maximum. Retry the request in [42] seconds",
		"Rate limit exceeded the maximum [300] requests within [60] seconds",
		"Try again after 99999999999999999999 s", "retry in 1.5s",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		wait, ok := InMessage(text)
		believable(t, wait, ok)

		ask := "Retry the request in [" + Format(wait) + "] seconds"
		if again, ok := InMessage([]byte(ask)); !ok || again < wait {
			t.Errorf("%q gives %v, %v", ask, again, ok)
		}
	})
}

func FuzzFormat(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(1))
	f.Add(int64(Max))
	f.Add(int64(-1) << 63)
	f.Add(int64(1<<63 - 1))
	f.Fuzz(func(t *testing.T, nanos int64) {
		asked := time.Duration(nanos)
		got, ok := RetryAfter(http.Header{"Retry-After": {Format(asked)}}, now)
		if asked > Max {
			if ok {
				t.Errorf("%v was read back as %v, above Max", asked, got)
			}
			return
		}
		if want := max(asked, 0); !ok || got < want || got-want >= time.Second {
			t.Errorf("%v was read back as %v, %v", asked, got, ok)
		}
	})
}

func believable(t *testing.T, wait time.Duration, ok bool) {
	t.Helper()
	if wait < 0 || wait > Max || !ok && wait != 0 {
		t.Fatalf("got %v, %v", wait, ok)
	}
}
