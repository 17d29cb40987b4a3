//! Probes, lifecycle hooks and the actions both are made of.

use crate::registry::field_table::*;

pub static PROBE: FieldTable = table(
    "Probe",
    &[
        object("exec", &EXEC_ACTION),
        object("httpGet", &HTTP_GET_ACTION),
        object("tcpSocket", &TCP_SOCKET_ACTION),
        object("grpc", &GRPC_ACTION),
        int32("initialDelaySeconds"),
        int32("timeoutSeconds").or_int(1),
        int32("periodSeconds").or_int(10),
        int32("successThreshold").or_int(1),
        int32("failureThreshold").or_int(3),
        int64("terminationGracePeriodSeconds").pointer(),
    ],
);

pub static EXEC_ACTION: FieldTable = table("ExecAction", &[strings("command")]);

pub static HTTP_GET_ACTION: FieldTable = table(
    "HTTPGetAction",
    &[
        string("path").or("/"),
        int_or_string("port").required(),
        string("host"),
        text("scheme", "URIScheme").or("HTTP"),
        objects("httpHeaders", &HTTP_HEADER),
    ],
);

pub static HTTP_HEADER: FieldTable =
    table("HTTPHeader", &[string("name").required(), string("value").required()]);

pub static TCP_SOCKET_ACTION: FieldTable =
    table("TCPSocketAction", &[int_or_string("port").required(), string("host")]);

pub static GRPC_ACTION: FieldTable =
    table("GRPCAction", &[int32("port").required(), string("service").pointer().or("")]);

pub static SLEEP_ACTION: FieldTable = table("SleepAction", &[int64("seconds").required()]);

pub static LIFECYCLE: FieldTable = table(
    "Lifecycle",
    &[
        object("postStart", &LIFECYCLE_HANDLER),
        object("preStop", &LIFECYCLE_HANDLER),
        text("stopSignal", "Signal").pointer(),
    ],
);

pub static LIFECYCLE_HANDLER: FieldTable = table(
    "LifecycleHandler",
    &[
        object("exec", &EXEC_ACTION),
        object("httpGet", &HTTP_GET_ACTION),
        object("tcpSocket", &TCP_SOCKET_ACTION),
        object("sleep", &SLEEP_ACTION),
    ],
);
