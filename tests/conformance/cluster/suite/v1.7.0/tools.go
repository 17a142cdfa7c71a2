//go:build tools

package suite

// The backend image of the suite, built as a binary beside the tests.
import _ "sigs.k8s.io/gateway-api-conformance-images/echo-basic"
