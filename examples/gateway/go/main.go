//go:build ignore

// Command launch launches a flow through a headgate gateway with the official SDK.
//
//	headgate gateway --emulator                    # in another terminal
//	go mod init launch && go get github.com/mypurecloud/platform-client-sdk-go/v188/platformclientv2
//	go run main.go
//
// HEADGATE_URL is where the gateway is, HEADGATE_CALLER and HEADGATE_KEY are a
// caller's name and key; with --emulator any will do.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/url"
	"os"
	"strings"

	"github.com/mypurecloud/platform-client-sdk-go/v188/platformclientv2"
)

func main() {
	gateway, err := url.Parse(cmp.Or(os.Getenv("HEADGATE_URL"), "http://127.0.0.1:8080"))
	if err != nil {
		log.Fatal(err)
	}
	setting := &platformclientv2.GateWayConfiguration{
		Protocol: gateway.Scheme,
		Host:     gateway.Hostname(),
		Port:     cmp.Or(gateway.Port(), map[string]string{"http": "80", "https": "443"}[gateway.Scheme]),
		Auth:     &platformclientv2.Auth{}, // not used, but without it SetGateway panics
	}
	if path := strings.Trim(gateway.Path, "/"); path != "" { // that of an org of several
		setting.PathParams = []*platformclientv2.PathParams{{PathName: "login", PathValue: path}, {PathName: "api", PathValue: path}}
	}
	config := platformclientv2.NewConfiguration()
	config.SetGateway(setting)
	if err := config.AuthorizeClientCredentials(cmp.Or(os.Getenv("HEADGATE_CALLER"), "example"), cmp.Or(os.Getenv("HEADGATE_KEY"), "any")); err != nil {
		log.Fatal(err)
	}
	launched, answer, err := platformclientv2.NewArchitectApiWithConfig(config).PostFlowsExecutions(platformclientv2.Flowexecutionlaunchrequest{
		FlowId:    new("my-flow"),
		InputData: &map[string]any{"Flow.n": 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("launched", *launched.Id, "after", answer.Response.Header.Get("Headgate-Wait"))
}
