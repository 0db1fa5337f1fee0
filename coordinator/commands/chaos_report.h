/* chaos_report.h - what trials and runs came to, on standard output.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_CHAOS_REPORT_H
#define TR_COORDINATOR_COMMANDS_CHAOS_REPORT_H

#include "coordinator/chaos/campaign.h"
#include "coordinator/chaos/storm.h"

void tr_chaos_report_trial(const tr_trial *trial, const tr_trial_result *result);
void tr_chaos_report_campaign(const tr_campaign_report *r);
void tr_chaos_report_storm(const tr_storm_report *r);

#endif
