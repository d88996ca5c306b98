# What another database server does after its boot: tables loaded from files, reports of another kind, no clients at once.
# Read by the guest's shell from a disk of its own; says on the console how it ended.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0' EXIT
cd /tmp

seq 1 5000 | awk '{ print $1 "," $1 * 37 % 1001 "," "customer " $1 % 97 ",2024-" $1 % 12 + 1 "-" $1 % 28 + 1 }' > sales.csv
chmod 644 sales.csv
runuser -u postgres -- psql -v ON_ERROR_STOP=1 <<'Q'
create role clerk login password 'clerk';
create database office owner clerk;
\c office
create table sales (id int primary key, amount numeric, customer text, day date);
\copy sales from '/tmp/sales.csv' csv
create function fee(amount numeric) returns numeric language plpgsql as $$ begin return round(amount * 0.03, 2); end $$;
create materialized view months as
  select date_trunc('month', day) as month, sum(amount) as total, sum(fee(amount)) as fees from sales group by 1;
create index on sales (customer, day);
create index on sales using brin (day);
analyze sales;
\d+
select customer, day, sum(amount) over (partition by customer order by day rows 7 preceding) from sales;
with recursive days(day) as (select date '2024-01-01' union all select day + 1 from days where day < '2024-12-31')
  select count(*) from days left join sales using (day);
select jsonb_agg(to_jsonb(s)) from sales s where customer ~ 'r [1-3]\d$';
select month, total, rank() over (order by total desc), to_char(month, 'TMMonth YYYY') from months;
select grouping(customer), count(distinct day), mode() within group (order by amount) from sales group by rollup (customer);
begin; delete from sales where id % 10 = 0; savepoint s; update sales set amount = amount + 1; rollback to s; commit;
refresh materialized view months;
reindex table sales;
Q
runuser -u postgres -- pg_dumpall --globals-only
runuser -u postgres -- pg_dump office
runuser -u postgres -- pg_lsclusters
