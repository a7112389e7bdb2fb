-- Returns what the refresh calls of the last window, including those in flight, have cost Discogs, and what one
-- identity has recently cost. A call in flight counts until its time is up. If its process no longer has a session,
-- LML may still be working on it, and it counts as if it had ended one window after it began. A call in the future
-- does not count: the clock was set back.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
),
counted AS MATERIALIZED (
    SELECT
        CASE WHEN r.known THEN round(r.cost / %(cold_cost)s::float8) ELSE r.identities END AS cold,
        r.cost,
        r.started_at,
        r.ended_at = 'infinity' AND a.held AND r.started_at > m.now - %(timeout)s::interval AS in_flight,
        CASE
            WHEN r.ended_at < 'infinity' THEN r.ended_at
            WHEN a.held THEN r.started_at + %(timeout)s::interval
            ELSE r.started_at + %(window)s::interval
        END + %(window)s::interval AS until
    FROM moment AS m
    INNER JOIN listener.refresh AS r
        ON r.ended_at > m.now - %(window)s::interval
        AND r.started_at <= m.now
    CROSS JOIN LATERAL (
        SELECT r.ended_at = 'infinity' AND EXISTS (
            SELECT FROM pg_stat_activity AS s WHERE s.application_name = r.holder AND s.datname = current_database()
        ) AS held
        OFFSET 0
    ) AS a
),
lately AS (
    SELECT
        l.cost,
        l.answered,
        sum(l.answered) OVER (ORDER BY l.refresh_id DESC) - l.answered AS later
    FROM (
        SELECT
            r.refresh_id,
            r.cost,
            r.answered
        FROM listener.refresh AS r
        CROSS JOIN moment AS m
        WHERE r.known = %(known)s
            AND r.answered > 0
            AND r.ended_at > m.now - %(recent)s::interval
            AND r.started_at <= m.now
        ORDER BY r.refresh_id DESC
        LIMIT %(memory)s
    ) AS l
)
SELECT
    c.cost,
    c.calls,
    c.in_flight,
    c.frees_in,
    c.cold_in_flight,
    l.cost AS learned_cost,
    l.identities AS learned_identities
FROM (
    SELECT
        coalesce(sum(n.cost) FILTER (WHERE n.until > m.now), 0)::int AS cost,
        count(*) FILTER (WHERE n.started_at > m.now - %(window)s::interval)::int AS calls,
        count(*) FILTER (WHERE n.in_flight)::int AS in_flight,
        coalesce(sum(n.cold) FILTER (WHERE n.in_flight), 0)::int AS cold_in_flight,
        min(CASE
            WHEN n.started_at > m.now - %(window)s::interval THEN n.started_at + %(window)s::interval
            ELSE n.until
        END) FILTER (WHERE n.until > m.now) - m.now AS frees_in
    FROM moment AS m
    LEFT JOIN counted AS n ON true
    GROUP BY m.now
) AS c
CROSS JOIN (
    SELECT
        coalesce(sum(y.cost), 0)::int AS cost,
        coalesce(sum(y.answered), 0)::int AS identities
    FROM lately AS y
    WHERE y.later < %(memory)s
) AS l
