# What a database server does after its boot: PostgreSQL is filled, queried by clients, asked for reports, and dumped.
# Read by the guest's shell from a disk of its own; says on the console how it ended.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0' EXIT
cd /tmp
as() { runuser -u postgres -- "$@"; }

as createdb shop
as /usr/lib/postgresql/15/bin/pgbench -q -i -s 1 shop
as /usr/lib/postgresql/15/bin/pgbench -n -c 4 -j 2 -t 20 shop
as psql -v ON_ERROR_STOP=1 shop <<'Q'
create extension pg_trgm;
create extension hstore;
create table words as select n, md5(n::text) || ' the quick brown foxes ' || n as body from generate_series(1, 3000) n;
create index on words using gin (to_tsvector('english', body));
create index on words using gist (body gist_trgm_ops);
analyze;
select count(*) from words where to_tsvector('english', body) @@ to_tsquery('english', 'fox & 77');
select body from words order by body <-> 'brown fox 1234' limit 3;
select xmlelement(name row, body)::text, jsonb_build_object('n', n) from words limit 50;
do $$ begin for i in 1..50 loop update words set body = body || i where n = i; end loop; end $$;
-- Dear enough for the planner to compile it.
select a.bid, sum(a.abalance), stddev(b.n) from pgbench_accounts a join words b on a.aid % 3000 = b.n group by 1;
select percentile_cont(0.5) within group (order by abalance) from pgbench_accounts;
Q
as psql -c 'vacuum analyze' shop
as pg_dump -Fc shop
