// Launches a flow through a headgate gateway with the official SDK
// (com.mypurecloud:platform-client-v2, 214.0.0 or newer).
//
//   headgate gateway --emulator          # in another terminal
//
// HEADGATE_URL is where the gateway is, HEADGATE_CALLER and HEADGATE_KEY are a
// caller's name and key; with --emulator any will do.

import com.mypurecloud.sdk.v2.ApiClient;
import com.mypurecloud.sdk.v2.Configuration;
import com.mypurecloud.sdk.v2.api.ArchitectApi;
import com.mypurecloud.sdk.v2.model.FlowExecutionLaunchRequest;
import com.mypurecloud.sdk.v2.model.FlowExecutionLaunchResponse;
import java.net.URI;
import java.util.Map;

public class Launch {
    public static void main(String[] args) throws Exception {
        Map<String, String> env = System.getenv();
        URI gateway = URI.create(env.getOrDefault("HEADGATE_URL", "http://127.0.0.1:8080"));
        String path = gateway.getPath(); // that of an org of several, such as /acme
        ApiClient client = ApiClient.Builder.standard()
                .withGateway(gateway.getHost(), gateway.getScheme(), gateway.getPort(), path, path)
                .build();
        client.authorizeClientCredentials(env.getOrDefault("HEADGATE_CALLER", "example"), env.getOrDefault("HEADGATE_KEY", "any"));
        Configuration.setDefaultApiClient(client);

        FlowExecutionLaunchRequest request = new FlowExecutionLaunchRequest()
                .flowId("my-flow")
                .inputData(Map.of("Flow.n", 1));
        FlowExecutionLaunchResponse launched = new ArchitectApi().postFlowsExecutions(request);
        System.out.println("launched " + launched.getId());
    }
}
