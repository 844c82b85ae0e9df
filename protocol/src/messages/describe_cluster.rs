//! DescribeCluster (key 60): cluster id, controller and brokers (KIP-700).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DescribeClusterRequest of DescribeCluster 0..=2, flexible 0.., answered by DescribeClusterResponse;

    /// Asks for them.
    pub struct DescribeClusterRequest {
        include_cluster_authorized_operations: bool => 0..;
        /// 1: brokers; 2: controllers.
        endpoint_type: i8 = 1 => 1..;
        include_fenced_brokers: bool => 2..;
    }
}

message! {
    DescribeClusterResponse of DescribeCluster 0..=2, flexible 0..;

    /// The cluster.
    pub struct DescribeClusterResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 0..;
        endpoint_type: i8 = 1 => 1..;
        cluster_id: StrBytes => 0..;
        controller_id: i32 = -1 => 0..;
        brokers: Vec<DescribeClusterBroker> => 0..;
        cluster_authorized_operations: i32 = i32::MIN => 0..;
    }

    /// A node.
    pub struct DescribeClusterBroker {
        broker_id: i32 => 0..;
        host: StrBytes => 0..;
        port: i32 => 0..;
        rack: Option<StrBytes> = None => 0..;
        is_fenced: bool => 2..;
    }
}
