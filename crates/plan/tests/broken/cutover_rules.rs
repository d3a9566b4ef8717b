//! Rules of `kind: Cutover` on Oracle, PostgreSQL, DMS and the applications.

use crate::case::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "cutover",
        "  dms_listener: LISTENER_DMS\n",
        "",
        &[("LS1040", "reverse")],
    ),
    case(
        "cutover",
        "  canary_table: LOCKSTEP.LOCKSTEP_CANARY\n",
        "",
        &[("LS1041", "reverse")],
    ),
    case(
        "cutover",
        "table-name: lockstep_canary",
        "table-name: lockstep_canary_1",
        &[("LS1043", "table_mappings")],
    ),
    case(
        "cutover",
        "table-name: lockstep_canary",
        "table-name: \"lockstep[_]%\"",
        &[("LS1043", "table_mappings")],
    ),
    case(
        "cutover",
        "  closed_addresses: [\"ora-1.example.net:1521\", \"ora-2.example.net:1521\"]\n",
        "  closed_addresses: []\n",
        &[("LS1044", "closed_addresses")],
    ),
    case(
        "cutover",
        "dms_machines: [10.20.0.17, 10.20.1.17]",
        "dms_machines: []",
        &[("LS1045", "dms_machines")],
    ),
    case(
        "cutover",
        "rollback_reserve: 12m",
        "rollback_reserve: 8m",
        &[("LS1046", "8m")],
    ),
    case(
        "cutover",
        "rollback_reserve: 12m",
        "rollback_reserve: 40m",
        &[("LS1042", "40m")],
    ),
    case(
        "cutover",
        "open-postgres: approval",
        "open_postgres: approval",
        &[("LS1025", "open_postgres")],
    ),
    case(
        "cutover",
        "- name: shop-report",
        "- name: oracle",
        &[("LS1020", "oracle")],
    ),
    case(
        "cutover",
        "services: [shop-orders.service]",
        "services: [shop-orders]",
        &[("LS1004", "shop-orders")],
    ),
    case(
        "cutover",
        "    timers: [shop-report.timer]\n",
        "",
        &[("LS1031", "shop-report")],
    ),
    case(
        "cutover",
        "accounts: [SHOP, BATCH]",
        "accounts: [SHOP, DMS_USER]",
        &[("LS1004", "DMS_USER")],
    ),
    case(
        "cutover",
        "    - column: shop.order_lines.id",
        "    - {column: shop.orders.id, oracle: SHOP.ORDERS_SEQ}",
        &[("LS1020", "shop.orders.id")],
    ),
    case(
        "cutover",
        "oracle: SHOP.ORDERS_SEQ",
        "oracle: SHOPP.ORDERS_SEQ",
        &[("LS1004", "SHOPP.ORDERS_SEQ")],
    ),
    case(
        "cutover",
        "{oracle: SHOP.ORDER_LINES, postgres: shop.order_lines}",
        "{oracle: SHOP.ORDERS, postgres: shop.orders}",
        &[("LS1020", "SHOP.ORDERS,"), ("LS1020", "shop.orders}")],
    ),
    case(
        "cutover",
        "except: []",
        "except: [shop.old, shop.orders]",
        &[("LS1020", "shop.orders]")],
    ),
    case(
        "cutover",
        "identifier: shop-reverse",
        "identifier: shop--reverse",
        &[("LS1021", "shop--reverse")],
    ),
    case(
        "cutover",
        "identifier: shop-reverse",
        "identifier: shop-reverse-",
        &[("LS1021", "shop-reverse-")],
    ),
    case(
        "cutover",
        "identifier: shop-reverse",
        "identifier: 2shop",
        &[("LS1021", "2shop")],
    ),
    case(
        "cutover",
        "identifier: shop-reverse",
        "identifier: shop_reverse",
        &[("LS1021", "shop_reverse")],
    ),
    case(
        "cutover",
        "marker_table: LOCKSTEP.LOCKSTEP_MARKER",
        "marker_table: MARKER",
        &[("LS1004", "MARKER")],
    ),
    case(
        "cutover",
        "on_failure: rollback",
        "deadlines: {close-oracle: 30s}",
        &[("LS1032", "30s"), ("LS1032", "30s")],
    ),
];
