// Launches a flow through a headgate gateway with the official SDK (the package
// PureCloudPlatform.Client.V2).
//
//   headgate gateway --emulator          # in another terminal
//
// HEADGATE_URL is where the gateway is, HEADGATE_CALLER and HEADGATE_KEY are a
// caller's name and key; with --emulator any will do.

using System;
using System.Collections.Generic;
using PureCloudPlatform.Client.V2.Api;
using PureCloudPlatform.Client.V2.Client;
using PureCloudPlatform.Client.V2.Extensions;
using PureCloudPlatform.Client.V2.Model;

string Env(string name, string otherwise) => Environment.GetEnvironmentVariable(name) ?? otherwise;

var gateway = new Uri(Env("HEADGATE_URL", "http://127.0.0.1:8080"));
var path = gateway.AbsolutePath.TrimEnd('/'); // that of an org of several, such as /acme
var client = Configuration.Default.ApiClient;
client.SetGateway(gateway.Host, gateway.Scheme, gateway.Port, path, path);
client.PostToken(Env("HEADGATE_CALLER", "example"), Env("HEADGATE_KEY", "any"));

var launched = new ArchitectApi().PostFlowsExecutions(new FlowExecutionLaunchRequest
{
    FlowId = "my-flow",
    InputData = new Dictionary<string, object> { ["Flow.n"] = 1 },
});
Console.WriteLine($"launched {launched.Id}");
