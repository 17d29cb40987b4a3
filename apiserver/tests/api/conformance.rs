//! The checks that the fake API server of the components' tests must pass, on the real one.

use skiff_client::testing::suite;

use crate::support::Server;

#[tokio::test]
async fn the_core_does_what_the_fake_does() {
    suite::run(Server::start().await.api.clone()).await;
}
